"""The user tower on LiteRT."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from twotower.features import FeatureRows

Embeddings = npt.NDArray[np.float32]


class UserTower:
    """A user tower, callable from any thread: each has an interpreter of its own."""

    def __init__(self, model: bytes) -> None:
        """`model`: the content of `user_tower.tflite`. Raises ValueError where it is not one."""
        self._model = model
        self._of_thread = threading.local()
        self._interpreter()

    def embed(self, features: FeatureRows) -> Embeddings:
        """Embed n users: float32 (n, features) to float32 (n, dim) of unit norm."""
        interpreter = self._interpreter()
        (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
        if tuple(given["shape"]) != features.shape:
            interpreter.resize_tensor_input(given["index"], features.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], features)
        interpreter.invoke()
        embeddings: Embeddings = interpreter.get_tensor(made["index"])
        return embeddings

    def _interpreter(self) -> Any:
        interpreter = getattr(self._of_thread, "interpreter", None)  # it is not thread-safe
        if interpreter is None:
            # One thread each: the batch is small, and the service's threads already fill the cores.
            interpreter = Interpreter(model_content=self._model, num_threads=1)
            interpreter.allocate_tensors()
            self._of_thread.interpreter = interpreter
        return interpreter

"""The user tower on LiteRT."""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from ai_edge_litert.interpreter import Interpreter

from twotower.arrays import Embeddings, FeatureRows
from twotower.bundle import RATING, RETRIEVAL


class UserEmbeddings(NamedTuple):
    """What a user tower gives: float32 (n, dim) of unit norm each; `rating` where it has that head."""

    retrieval: Embeddings
    rating: Embeddings | None


class UserTower:
    """A user tower, callable from any thread: each has an interpreter of its own."""

    def __init__(self, model: bytes) -> None:
        """`model`: the content of `user_tower.tflite`. Raises ValueError where it is not one."""
        self._model = model
        self._of_thread = threading.local()
        self.rates: Final = RATING in self._runner().get_output_details()

    def embed(self, features: FeatureRows) -> UserEmbeddings:
        """Embed n users: float32 (n, width) to float32 (n, dim) of unit norm, for each head."""
        runner = self._runner()
        (name,) = runner.get_input_details()
        made = runner(**{name: features})
        return UserEmbeddings(made[RETRIEVAL], made.get(RATING))

    def _runner(self) -> Any:
        runner = getattr(self._of_thread, "runner", None)  # it is not thread-safe
        if runner is None:
            # One thread each: the batch is small, and the service's threads already fill the cores.
            interpreter = Interpreter(model_content=self._model, num_threads=1)
            runner = self._of_thread.runner = interpreter.get_signature_runner()
        return runner

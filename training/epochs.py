"""Learning by gradient, one epoch after the other, such that an interruption loses no more than one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.checkpoint import Arrays, Checkpoint
from training.config import OnEpoch
from twotower.errors import TrainingError

Losses = tuple[float, float | None]
"""Of an epoch: in training, and on what was held out, where anything was."""

_STATE: Final = "epochs"


class Epochs:
    """The epochs of one fit, after each of which the checkpoint has what the next one needs."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        random: np.random.Generator,
        checkpoint: Checkpoint,
        *,
        beside: Sequence[tf.Variable] = (),
    ) -> None:
        """Of a model and variables `beside` it, which are learned. random: what draws the order."""
        self._learned = [*model.weights, *beside]
        weights = {id(weight) for weight in model.weights}
        of_dropout = [each for each in model.variables if id(each) not in weights]
        self._others = [*of_dropout, *optimizer.variables]
        self._random, self._checkpoint = random, checkpoint
        self._losses: list[Losses] = []
        self._best: list[npt.NDArray[Any]] = []

    def run(
        self,
        one: Callable[[], Losses],
        most: int,
        on_epoch: OnEpoch,
        *,
        patience: int | None = None,
    ) -> int:
        """Run `one` epoch after the other, at most so many, and return which of them was the best.

        With `patience`, that is the one with the least error on what was held out, it ends after so many
        others, and what is learned is as after the best. Without, it is the last. Those that the
        checkpoint has are not run again. Raises TrainingError where a loss is no number any more.
        """
        self._restore()
        for epoch, losses in enumerate(self._losses, start=1):
            on_epoch(epoch, *losses)
        while len(self._losses) < most and not self._is_over(patience):
            self._losses.append(one())
            epoch, losses = len(self._losses), self._losses[-1]
            _check_finite(losses, epoch)
            on_epoch(epoch, *losses)
            if patience and self._best_epoch() == epoch:
                self._best = [variable.numpy() for variable in self._learned]
            self._save()
        if patience is None:
            return len(self._losses)
        for variable, best in zip(self._learned, self._best, strict=True):
            variable.assign(best)
        return self._best_epoch()

    def _best_epoch(self) -> int:
        held_out = [error for _, error in self._losses if error is not None]
        return int(np.argmin(held_out)) + 1 if held_out else len(self._losses)

    def _is_over(self, patience: int | None) -> bool:
        return patience is not None and len(self._losses) - self._best_epoch() >= patience

    def _save(self) -> None:
        state = [variable.numpy() for variable in (*self._learned, *self._others)]
        progress = {"losses": self._losses, "random": self._random.bit_generator.state}
        arrays = {f"state_{place}": value for place, value in enumerate(state)}
        arrays |= {f"best_{place}": value for place, value in enumerate(self._best)}
        self._checkpoint.save(_STATE, {**arrays, "progress": np.array(json.dumps(progress))})

    def _restore(self) -> None:
        kept = self._checkpoint.load(_STATE)
        if kept is None:
            return
        progress = json.loads(str(kept["progress"]))
        self._losses = [(loss, error) for loss, error in progress["losses"]]
        self._random.bit_generator.state = progress["random"]
        self._best = _numbered(kept, "best")
        state = _numbered(kept, "state")
        for variable, value in zip((*self._learned, *self._others), state, strict=True):
            variable.assign(value)


def _numbered(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    places = range(sum(each.startswith(f"{name}_") for each in arrays))
    return [arrays[f"{name}_{place}"] for place in places]


def _check_finite(losses: Losses, epoch: int) -> None:
    if not all(math.isfinite(loss) for loss in losses if loss is not None):
        raise TrainingError(
            f"the loss is not finite after epoch {epoch}: the recipe's learning_rate may be too high"
        )

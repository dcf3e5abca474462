# SPDX-License-Identifier: Apache-2.0
"""A moving average of the weights, which tells better clouds than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .sharding import copy_whole, whole

AVERAGE_FILE = "average.safetensors"


class WeightAverage:
    """Exponential moving average of the weights that are trained, at least in float32.

    Args:
        model: Unwrapped; its weights as they are start the average.
        decay: Share of the average that a step keeps, in the long run. The first steps keep less,
            so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self.weights.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights in after a step. The first step is 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight.to(self.average[name].dtype), 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Makes the average the weights of the model."""
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average for its weights inside the block."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.store()
        try:
            yield
        finally:
            self._restore(kept)

    @torch.no_grad()
    def _restore(self, kept: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(kept[name])

    def save(self, folder: Path, *, is_main: bool = True) -> None:
        """Writes the average into the folder of a checkpoint; all processes must come.

        Args:
            folder: Where.
            is_main: Whether this is the process that writes.
        """
        average = {name: whole(value).contiguous() for name, value in self.average.items()}
        if is_main:
            save_file(average, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: The checkpoint was written without an average.
        """
        path = folder / AVERAGE_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"`ema_decay` is set, but {path} does not exist: the run began without. Go on "
                "without it, or begin again in another folder."
            )
        for name, value in load_file(path).items():
            copy_whole(self.average[name], value)

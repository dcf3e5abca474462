# SPDX-License-Identifier: Apache-2.0
"""Stage 0: the rig regressor learns to read head shape, expression and pose off a portrait."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..geometry.structures import RigParams
from ..models.image_processing_portrait import PortraitImageProcessor
from ..models.modeling_rig_regressor import RigRegressor
from ..rigs.head_rig import HeadRig
from .dataset import People
from .loop import Batch, LoopConfig, train
from .portraits import portrait_pixels

MILLIMETRES = 1000.0


class RegressorTraining(nn.Module):
    """The regressor with its loss: how far apart the predicted and the true heads are.

    Coefficients count by what they move, so those that a picture cannot show cost little.
    """

    def __init__(self, regressor: RigRegressor, rig: HeadRig) -> None:
        super().__init__()
        self.regressor = regressor
        for name in ("shapedirs", "exprdirs"):
            directions = getattr(rig, name).flatten(0, 1)
            gram = directions.T @ directions / len(rig.v_template) * MILLIMETRES**2
            self.register_buffer(f"{name}_gram", gram, persistent=False)

    def forward(
        self, pixel_values: Tensor, betas: Tensor, expression: Tensor, poses: Tensor
    ) -> dict[str, Tensor]:
        """Losses: mean squared vertex distances in mm^2, and squared angles."""
        predicted = self.regressor(pixel_values)
        shape, mimic = predicted.betas - betas, predicted.expression - expression
        losses = {
            "shape": torch.einsum("bi,ij,bj->b", shape, self.shapedirs_gram, shape).mean(),
            "expression": torch.einsum("bi,ij,bj->b", mimic, self.exprdirs_gram, mimic).mean(),
            "pose": 100 * (predicted.poses - poses).square().sum((1, 2)).mean(),
        }
        # A prior keeps coefficients that the picture does not show at the mean.
        prior = 0.01 * predicted.betas.square().sum(-1).mean()
        return {**losses, "loss": sum(losses.values()) + prior}


def train_regressor(
    regressor: RigRegressor,
    people: People,
    processor: PortraitImageProcessor,
    config: LoopConfig,
) -> RigRegressor:
    """Trains the regressor on the portraits of a data set."""

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        which = torch.randint(len(person.portraits), (1,), generator=generator)
        params: RigParams = person.portrait_params[which]
        pixels = portrait_pixels(person.portraits[which] / 255, processor, generator)
        return {
            "pixel_values": pixels,
            "betas": params.betas,
            "expression": params.expression,
            "poses": params.poses,
        }

    def collate(rows: list[Batch]) -> Batch:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    training = RegressorTraining(regressor, people.rig)
    return train(training, make_row, collate, len(people), config).regressor

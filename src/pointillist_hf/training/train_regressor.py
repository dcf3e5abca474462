# SPDX-License-Identifier: Apache-2.0
"""Stage 0: portraits become tokens, and the tokens head shape, expression and pose.

The conditioner takes over the image encoder trained here and keeps it as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..geometry.structures import RigParams
from ..models.layout_reader import LayoutReader, layout_losses
from ..models.modeling_rig_regressor import RigRegressor
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..rigs.head_rig import HeadRig
from .dataset import People
from .loop import Batch, train
from .loop_config import LoopConfig
from .portraits import portrait_pixels
from .view_synthesis import MILLIMETRES, RestViews, ViewSynthesis

# A view that is 1 % off weighs as much as a vertex that is 1 mm off.
VIEW_WEIGHT = 100.0
# A nat of a cloud's layout, of which there are hundreds, weighs as much as 0.3 mm at all vertices.
LAYOUT_SIZE, LAYOUT_WEIGHT = 8, 0.1


class RegressorTraining(nn.Module):
    """The regressor with its losses: heads, drawn views, and where hair and beards are.

    Coefficients count by what they move, so those that a picture cannot show cost little. Views
    keep colours in the tokens, layouts what points stand off the skin; both are pretexts for the
    encoder, and what draws and counts is left behind.
    """

    def __init__(self, regressor: RigRegressor, rig: HeadRig) -> None:
        super().__init__()
        self.regressor = regressor
        sizes = regressor.config.image_config
        self.view_synthesis = ViewSynthesis(sizes.hidden_size, sizes.num_attention_heads)
        self.layout_reader = LayoutReader(LAYOUT_SIZE, sizes.hidden_size, sizes.hidden_size)
        for name in ("shapedirs", "exprdirs"):
            directions = getattr(rig, name).flatten(0, 1)
            gram = directions.T @ directions / len(rig.v_template) * MILLIMETRES**2
            self.register_buffer(f"{name}_gram", gram, persistent=False)

    def forward(
        self,
        pixel_values: Tensor,
        betas: Tensor,
        expression: Tensor,
        poses: Tensor,
        layouts: Tensor,
        views: Tensor | None = None,
        viewmats: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses: mean squared vertex distances in mm^2, squared angles, nats, pixel errors."""
        tokens = self.regressor.encode_image(pixel_values)
        predicted = self.regressor.read_params(tokens)
        guesses = self.layout_reader(tokens)
        drawn = None if viewmats is None else self.view_synthesis(tokens, viewmats)
        with torch.autocast(pixel_values.device.type, enabled=False):
            shape, mimic = predicted.betas - betas, predicted.expression - expression
            losses = {
                "shape": torch.einsum("bi,ij,bj->b", shape, self.shapedirs_gram, shape).mean(),
                "expression": torch.einsum("bi,ij,bj->b", mimic, self.exprdirs_gram, mimic).mean(),
                "pose": 100 * (predicted.poses - poses).square().sum((1, 2)).mean(),
            }
            losses["layout"] = LAYOUT_WEIGHT * layout_losses(guesses, layouts).mean()
            if drawn is not None:
                losses["views"] = VIEW_WEIGHT * (drawn.float() - views).abs().mean()
            # A prior keeps coefficients that the picture does not show at the mean.
            prior = 0.01 * predicted.betas.square().sum(-1).mean()
            return {**losses, "loss": sum(losses.values()) + prior}


def train_regressor(
    regressor: RigRegressor,
    people: People,
    processor: PortraitImageProcessor,
    config: LoopConfig,
    *,
    views_per_portrait: int = 2,
) -> RigRegressor:
    """Trains the regressor on the portraits of a data set, and its encoder on views and layouts.

    Where somebody has no views, nobody's are drawn.
    """
    rest_views = RestViews(people.rig)
    has_views = all(len(person.views) for person in people.persons)

    def make_row(index: Tensor, generator: torch.Generator) -> Batch:
        person = people.persons[int(index)]
        which = torch.randint(len(person.portraits), (1,), generator=generator)
        params: RigParams = person.portrait_params[which]
        pixels = portrait_pixels(person.portraits[which] / 255, processor, generator)
        row = {
            "pixel_values": pixels,
            "betas": params.betas,
            "expression": params.expression,
            "poses": params.poses,
            "layouts": people.layout_of(person, LAYOUT_SIZE)[None],
        }
        if has_views:
            views = rest_views.draw(person, views_per_portrait, generator)
            row |= dict(zip(("views", "viewmats"), views, strict=True))
        return row

    def collate(rows: list[Batch]) -> Batch:
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    # Nothing is masked here, and processes must agree on which parameters have a gradient.
    regressor.image_encoder.embeddings.mask_token.requires_grad_(False)
    training = RegressorTraining(regressor, people.rig)
    training.view_synthesis.requires_grad_(has_views)
    return train(training, make_row, collate, len(people), config).regressor

# SPDX-License-Identifier: Apache-2.0
"""Image losses and the offset regulariser of stage 2 (paper Eq. 6). Images are [..., H, W, 3]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from transformers import Dinov2Model

from ..rendering.similarity import structural_similarity

PerceptualLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossWeights:
    """Weights of Eq. 6."""

    l1: float = 1.0
    ssim: float = 0.5
    perceptual: float = 0.1
    offset: float = 0.1


def offset_penalty(offsets: Tensor, bin_size: float) -> Tensor:
    """Mean squared offset in units of one bin. [N, 3] metres -> one number"""
    return (offsets / bin_size).square().sum(-1).mean()


class FeatureDistance(nn.Module):
    """Perceptual distance in the feature space of a frozen DINOv2.

    LPIPS is the paper's choice, but its weights are a download; any callable of two image batches
    fits in its place.

    Args:
        image_encoder: Kept frozen.
    """

    def __init__(self, image_encoder: Dinov2Model) -> None:
        super().__init__()
        self.image_encoder = image_encoder.eval().requires_grad_(False)

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        """Mean squared distance of the unit patch features. [C, H, W, 3] x 2 -> one number"""
        size = self.image_encoder.config.image_size
        features = []
        for images in (rendered, target):
            pixels = interpolate(images.permute(0, 3, 1, 2), (size, size), mode="bilinear")
            states = self.image_encoder((pixels - 0.45) / 0.225).last_hidden_state
            features.append(normalize(states[:, 1:], dim=-1))
        return (features[0] - features[1]).square().sum(-1).mean()


def image_losses(
    rendered: Tensor,
    target: Tensor,
    weights: LossWeights,
    perceptual: PerceptualLoss | None = None,
) -> dict[str, Tensor]:
    """The image terms of Eq. 6, each without its weight, and their weighted sum as "image".

    Args:
        rendered: [C, H, W, 3]
        target: [C, H, W, 3]
        weights: Of the terms.
        perceptual: None leaves that term out.
    """
    terms = {
        "l1": (rendered - target).abs().mean(),
        "ssim": 1 - structural_similarity(rendered, target),
    }
    total = weights.l1 * terms["l1"] + weights.ssim * terms["ssim"]
    if perceptual is not None:
        terms["perceptual"] = perceptual(rendered, target)
        total = total + weights.perceptual * terms["perceptual"]
    return {**terms, "image": total}

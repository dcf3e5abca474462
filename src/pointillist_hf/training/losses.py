# SPDX-License-Identifier: Apache-2.0
"""Image losses and the offset regulariser of stage 2 (paper Eq. 6). Images are [..., H, W, 3]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

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

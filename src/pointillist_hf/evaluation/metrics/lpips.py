# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a metric; its network is in `pretrained.lpips`, because training uses it too."""

from __future__ import annotations

import torch
from torch import Tensor

from ...pretrained.lpips import LpipsNetwork, perceptual_distance
from .pixels import check_pictures


@torch.no_grad()
def lpips(images: Tensor, targets: Tensor, network: LpipsNetwork) -> Tensor:
    """LPIPS of pairs of pictures; 0 for equal ones. [C, H, W, 3] -> [C]"""
    check_pictures(images, targets)
    return perceptual_distance(images, targets, network)

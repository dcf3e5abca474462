# SPDX-License-Identifier: Apache-2.0
"""Which splats enter a file."""

from __future__ import annotations

import logging

from torch import Tensor

from ..geometry.structures import Gaussians
from ..rendering.reference_backend import find_finite

logger = logging.getLogger(__name__)


def select_finite(gaussians: Gaussians) -> Gaussians:
    """The splats whose values are all finite and whose sizes are positive."""
    return gaussians[find_writable(gaussians)]


def find_writable(gaussians: Gaussians) -> Tensor:
    """Whether a splat's values are finite and its sizes positive; the log counts the rest. [N]

    Raises:
        ValueError: An opacity is beyond [0, 1].
    """
    check_opacities(gaussians.opacities)
    is_writable = find_finite(gaussians) & (gaussians.scales > 0).all(-1)
    report_dropped(is_writable)
    return is_writable


def report_dropped(is_written: Tensor) -> None:
    """Warns of the splats that are left out. [N] bool"""
    if not is_written.all():
        count = int((~is_written).sum())
        logger.warning("%d splats with non-finite values were left out.", count)


def check_opacities(opacities: Tensor) -> None:
    """Refuses opacities beyond [0, 1]; those that are not finite are another matter."""
    is_beyond = (opacities < 0) | ((opacities > 1) & opacities.isfinite())
    if is_beyond.any():
        found = float(opacities[is_beyond][0])
        raise ValueError(
            f"`opacities` must lie in [0, 1], got {found:g}; of logits take the sigmoid first."
        )

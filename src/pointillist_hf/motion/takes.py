# SPDX-License-Identifier: Apache-2.0
"""A take: ARKit's coefficients over time as a program recorded them, before they move a rig.

Readers of the dialects make a take; here it is checked once, its gaps are filled, and it is brought
to the rate of a clip. Missing frames are rows of NaN until then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.rotations import quat_multiply
from .arkit_names import mirror_name

logger = logging.getLogger(__name__)

# Trackers and smoothing filters overshoot a little; beyond, a value is no strength.
LEAST, MOST = -0.25, 1.5
PERCENT_FROM = 10.0  # a take whose strongest value lies between MOST and this is neither


@dataclass(frozen=True)
class Take:
    """T frames, some of which may lack a face."""

    path: Path
    names: tuple[str, ...]  # ARKit's, of C coefficients
    values: Tensor  # [T, C] float64, NaN in frames without a face
    times: Tensor | None = None  # [T] seconds, float64, growing
    rate: float | None = None  # frames per second, where times are not given one by one
    head: Tensor | None = None  # [T, 4] quaternions of the head, wxyz; NaN where not known
    left_out: dict[str, str] = field(default_factory=dict)  # columns and why

    def __len__(self) -> int:
        return len(self.values)


def check_take(take: Take, *, percent: bool | None = None) -> Take:
    """The take with strengths around [0, 1]; says what it leaves out.

    Args:
        take: As recorded.
        percent: Whether 100 is full strength; None judges by the values.

    Raises:
        ValueError: There is no frame with a face, or a value is no strength.
    """
    seen = take.values[~take.values.isnan().any(1)]
    if not len(seen):
        raise ValueError(f"{take.path} must hold at least one frame with a face, got none.")
    if not torch.isfinite(seen).all():
        raise ValueError(f"{take.path} must hold finite coefficients, got infinity.")
    if percent is None:
        percent = _is_percent(seen, take)
    if percent:
        take, seen = replace(take, values=take.values / 100), seen / 100
    outside = (seen < LEAST) | (seen > MOST)
    if outside.any():
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"`{take.names[column]}` of {take.path} must lie in [0, 1] or thereabouts, got "
            f"{float(seen[row, column]) * (100 if percent else 1):g}"
            f"{' of 100' if percent else ''}. If 100 is full strength there, say `percent=True`."
        )
    _say_what_is_left_out(take)
    return take


def _is_percent(seen: Tensor, take: Take) -> bool:
    """Whether strengths are counted from 0 to 100: several coefficients say so, or the only one."""
    strongest = seen.amax(0)
    if strongest.max() <= MOST:
        return False
    large, moving = strongest > PERCENT_FROM, strongest > 0.02
    if large.sum() < min(2, int(moving.sum())) or strongest.max() > 100 * MOST:
        return False
    if seen.min() < 100 * LEAST:
        return False
    logger.warning(
        "%s counts from 0 to 100 (up to %g); its coefficients are divided by 100.",
        take.path,
        float(strongest.max()),
    )
    return True


def _say_what_is_left_out(take: Take) -> None:
    if take.left_out:
        reasons: dict[str, list[str]] = {}
        for name, reason in take.left_out.items():
            reasons.setdefault(reason, []).append(name)
        said = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        logger.warning("Left out of %s: %s.", take.path, said)


def mirror_take(take: Take) -> Take:
    """The take of a mirrored face: sides change places, and turns to the side turn round."""
    head = None if take.head is None else take.head * torch.tensor([1.0, 1, -1, -1]).to(take.head)
    return replace(take, names=tuple(mirror_name(name) for name in take.names), head=head)


def as_coefficients(take: Take) -> dict[str, Tensor]:
    """The columns by name, as `arkit_params` takes them. [T] each"""
    return {name: take.values[:, i].float() for i, name in enumerate(take.names)}


def turn_quaternions(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotations of a head that turns, then nods, then tilts about its own axes.

    The axes are those of the rig and of ARKit's face: x to the subject's left, y up, z out of the
    face, right-handed. So a positive yaw turns to the subject's left, a positive pitch nods down
    and a positive roll tilts the head towards the subject's right shoulder.

    Args:
        yaw: Radians. [T]
        pitch: Radians. [T]
        roll: Radians. [T]

    Returns:
        wxyz. [T, 4]
    """
    zero = torch.zeros_like(yaw)

    def about(axis: int, angle: Tensor) -> Tensor:
        parts = [zero, zero, zero]
        parts[axis] = torch.sin(angle / 2)
        return torch.stack([torch.cos(angle / 2), *parts], dim=-1)

    return quat_multiply(quat_multiply(about(1, yaw), about(0, pitch)), about(2, roll))

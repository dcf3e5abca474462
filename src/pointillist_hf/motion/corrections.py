# SPDX-License-Identifier: Apache-2.0
"""Coefficients that mean something only together, made to agree before they move a rig.

A rig adds up what each coefficient does, and ARKit's tracker seldom asks for what a face cannot do.
Other sources do: a squint on a shut eye, a tongue behind shut lips. A coefficient that acts alone
stays as it is, but for `tongueOut` and `mouthClose`, which cannot act alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arkit_names import ARKIT_NAMES, SIDES

TONGUE_NEEDS = 0.35  # `jawOpen` that lets the whole tongue out between lips and teeth
SHARED_CONTRACTION = 0.5  # of a full `mouthPucker` that a full `mouthFunnel` has done already
PRESS_OF_EXCESS = 0.5  # `mouthPress` on each side, of lips shut further than together


def correct_pairs(values: Tensor, *, has_tongue: bool) -> Tensor:
    """Coefficients that a face can have.

    - `eyeSquint` and `eyeWide` move the lids that `eyeBlink` leaves: a shut eye stays shut, and its
      lids do not cross.
    - `mouthPucker` and `mouthFunnel` draw in the same corners, which must not meet.
    - `tongueOut` opens the jaw as far as the tongue needs, and `mouthClose` lets it through.
    - `mouthClose` undoes the opening of the jaw and no more; the rest presses the lips.

    Args:
        values: In the order of `ARKIT_NAMES`. [T, 52]
        has_tongue: Whether the rig can put out its tongue.

    Returns:
        [T, 52]; `mouthClose` lies between zero and `jawOpen`.
    """
    column = {name: values[:, i] for i, name in enumerate(ARKIT_NAMES)}
    for side in SIDES:
        left_open = 1 - column[f"eyeBlink{side}"].clamp(0, 1)
        for name in (f"eyeSquint{side}", f"eyeWide{side}"):
            column[name] = column[name] * left_open
    funnelled = column["mouthFunnel"].clamp(0, 1)
    column["mouthPucker"] = column["mouthPucker"] * (1 - SHARED_CONTRACTION * funnelled)
    room = TONGUE_NEEDS * column["tongueOut"].clamp(0, 1) * has_tongue
    shut, jaw = column["mouthClose"].clamp_min(0), column["jawOpen"]
    for side in SIDES:
        press = PRESS_OF_EXCESS * (shut - jaw.clamp_min(0)).clamp_min(0)
        column[f"mouthPress{side}"] = column[f"mouthPress{side}"] + press
    column["jawOpen"] = torch.where(room > jaw.clamp_min(0), room, jaw)
    column["mouthClose"] = torch.minimum(shut, (column["jawOpen"] - room).clamp_min(0))
    return torch.stack([column[name] for name in ARKIT_NAMES], dim=1)

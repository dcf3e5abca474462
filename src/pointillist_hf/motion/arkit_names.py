# SPDX-License-Identifier: Apache-2.0
"""The names of ARKit's 52 coefficients, and what other programs write for them.

Sides are the subject's. Apple's own strings end in `_L` and `_R`, Live Link Face begins with a
capital, Maya and Unity put the name of a mesh and a dot in front.
"""

from __future__ import annotations

import re

ARKIT_NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight",
    "eyeLookOutRight", "eyeLookUpRight", "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft",
    "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight",
    "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip

SIDES = {"Left": ("left", "l"), "Right": ("right", "r")}


def _spellings() -> dict[str, str]:
    """ARKit's name by every way to write it, without case and marks."""
    spellings = {}
    for name in ARKIT_NAMES:
        side = next((side for side in SIDES if name.endswith(side)), "")
        stem = name.removesuffix(side).lower()
        for ending in SIDES.get(side, ("",)):
            spellings[stem + ending] = name
    return spellings


SPELLINGS = _spellings()


def find_arkit_name(text: str) -> str | None:
    """ARKit's name of what a file calls `text`, such as `EyeBlinkLeft`, `face.eyeBlink_L`.

    Example:
        >>> find_arkit_name("eyeBlink_L")
        'eyeBlinkLeft'
    """
    whole = fold_name(text)
    return SPELLINGS.get(whole) or SPELLINGS.get(fold_name(text.rpartition(".")[2]))


def fold_name(text: str) -> str:
    """A name without case and without marks between its words."""
    return re.sub(r"[\W_]+", "", text).lower()


def mirror_name(name: str) -> str:
    """The coefficient of the other side: of `jawLeft`, `jawRight`; of `jawOpen`, itself."""
    for one, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(one):
            return name.removesuffix(one) + other
    return name

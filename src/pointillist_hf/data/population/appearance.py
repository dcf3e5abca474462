# SPDX-License-Identifier: Apache-2.0
"""What a subject looks like, in numbers that the painters of its parts read."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Appearance:
    """Colours of one subject; strengths are in [0, 1], lengths in centimetres."""

    skin: Color = (0.87, 0.66, 0.55)
    lip: Color = (0.74, 0.40, 0.38)
    iris: Color = (0.33, 0.22, 0.12)
    brow: Color = (0.22, 0.14, 0.09)
    hair: Color = (0.20, 0.13, 0.09)
    cloth: Color = (0.25, 0.33, 0.50)

    hair_tint: float = 0.0  # how much the scalp takes the colour of the hair
    hairline: float = 0.0
    beard_tint: float = 0.0
    brow_tint: float = 0.75
    brow_height: float = 0.0
    brow_thickness: float = 1.0

    freckles: float = 0.0
    age: float = 0.0
    makeup: float = 0.0

    cloth_line: float = -13.6  # height of the neckline
    collar: float = 0.25
    stripes: float = 0.0
    pattern_shift: float = 0.0  # which part of the noise this subject gets

# SPDX-License-Identifier: Apache-2.0
"""What a person may wear: glasses and earrings, drawn at random; `worn` and others shape them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import palettes
from .appearance import Color
from .coloring import draw_name

# Accessories have draws of their own, so that they change nothing else about a person.
ACCESSORY_STREAM = 4


@dataclass(frozen=True)
class Glasses:
    """A pair of glasses; sRGB colours."""

    style: str  # a key of `palettes.FRAME_ODDS`
    is_metal: bool  # thin wire with pads on the nose, or plastic that rests on it
    color: Color
    size: float = 1.0  # of the lenses, 1 is typical
    lens_color: Color = (0.55, 0.60, 0.62)
    lens_opacity: float = 0.04

    def __post_init__(self) -> None:
        _check_style("glasses", self.style, palettes.FRAME_ODDS)


@dataclass(frozen=True)
class Earrings:
    """A pair of earrings; sRGB colours."""

    style: str  # a key of `palettes.EARRING_ODDS`
    metal: Color
    stone: Color  # of the bead of a stud or drop
    size: float = 1.0  # 1 is typical

    def __post_init__(self) -> None:
        _check_style("earrings", self.style, palettes.EARRING_ODDS)


def sample_accessories(
    seed: int, *, is_feminine: bool, hair_style: str
) -> tuple[Glasses | None, Earrings | None]:
    """What the person of a seed wears."""
    rng = np.random.default_rng([seed, ACCESSORY_STREAM])
    has_glasses, wants_earrings = rng.random(2) < (
        palettes.GLASSES_SHARE,
        palettes.EARRINGS_SHARE["feminine" if is_feminine else "masculine"],
    )
    glasses, earrings = sample_glasses(rng), sample_earrings(rng)
    shows_ears = hair_style in palettes.STYLES_WITH_FREE_EARS
    return glasses if has_glasses else None, earrings if wants_earrings and shows_ears else None


def sample_glasses(rng: np.random.Generator, style: str | None = None) -> Glasses:
    """Glasses in a colour that their material has, of a random style unless one is named."""
    drawn = draw_name(rng, palettes.FRAME_ODDS)
    style = style or drawn
    _check_style("glasses", style, palettes.FRAME_ODDS)
    is_metal = bool(rng.random() < palettes.METAL_FRAME_ODDS[style])
    colors = palettes.METAL_COLORS if is_metal else palettes.PLASTIC_COLORS
    color = colors[rng.integers(len(colors))]
    size = float(rng.uniform(0.93, 1.07))
    tint = palettes.SUNGLASS_TINTS[rng.integers(len(palettes.SUNGLASS_TINTS))]
    darkness = float(rng.uniform(0.75, 0.93))
    if rng.random() < palettes.SUNGLASSES_SHARE:
        return Glasses(style, is_metal, color, size, tint, darkness)
    return Glasses(style, is_metal, color, size)


def sample_earrings(rng: np.random.Generator, style: str | None = None) -> Earrings:
    """Earrings of a random style unless one is named."""
    drawn = draw_name(rng, palettes.EARRING_ODDS)
    metals, stones = palettes.EARRING_METALS, palettes.EARRING_STONES
    return Earrings(
        style=style or drawn,
        metal=metals[rng.integers(len(metals))],
        stone=stones[rng.integers(len(stones))],
        size=float(rng.uniform(0.8, 1.25)),
    )


def _check_style(name: str, style: str, table: dict[str, float]) -> None:
    if style not in table:
        raise ValueError(f"The style of `{name}` must be one of {sorted(table)}, got {style!r}.")

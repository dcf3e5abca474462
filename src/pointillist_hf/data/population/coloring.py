# SPDX-License-Identifier: Apache-2.0
"""Colours that go together: skin, hair, eyes, lips and clothes of one subject, drawn at random."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np

from . import palettes
from .appearance import Appearance, Color


def sample_appearance(
    rng: np.random.Generator,
    *,
    tone: int,
    hair_name: str,
    is_feminine: bool,
    hair_tint: float,
    beard_tint: float,
    hairline: float,
) -> Appearance:
    """Colours and surface detail that go with a skin tone and a hair colour."""
    skin = np.asarray(palettes.SKIN_TONES[tone][0])
    skin = skin * (1 + 0.04 * rng.normal()) * (1 + 0.015 * rng.normal(size=3))
    hair = np.asarray(palettes.HAIR_COLORS[hair_name]) * (1 + 0.10 * rng.normal())
    brow = np.asarray(palettes.HAIR_COLORS[palettes.BROW_COLORS.get(hair_name, hair_name)])
    is_aged = hair_name in palettes.AGED_HAIR_COLORS
    has_freckles = tone <= palettes.LAST_FRECKLED_TONE and rng.random() < 0.15
    return Appearance(
        skin=_color(skin),
        lip=_color(_sample_lip(rng, skin, tone, is_feminine)),
        iris=_color(_sample_iris(rng, tone)),
        brow=_color(0.85 * brow),
        hair=_color(hair),
        cloth=_color(_sample_cloth(rng)),
        hair_tint=hair_tint,
        hairline=hairline,
        beard_tint=beard_tint,
        brow_tint=0.42,
        brow_height=float(rng.normal(0, 0.06)),
        brow_thickness=float((0.72 if is_feminine else 1.05) * (1 + 0.15 * rng.normal())),
        freckles=0.5 if has_freckles else 0.0,
        age=0.9 if is_aged else float(np.clip(rng.normal(0.25, 0.3), 0, 1)),
        makeup=float(rng.choice([0.0, 0.35])) if is_feminine else 0.0,
        cloth_line=float(-13.6 + rng.uniform(-1.6, 1.0)),
        collar=float(rng.uniform(0, 0.4)),
        stripes=float(rng.uniform(0.15, 0.45)) if rng.random() < 0.2 else 0.0,
        pattern_shift=float(rng.uniform(0, 64)),
    )


def _sample_lip(
    rng: np.random.Generator, skin: np.ndarray, tone: int, is_feminine: bool
) -> np.ndarray:
    """Lips between their own red and that of the skin, or lipstick. [3]."""
    if is_feminine and rng.random() < 0.35:
        return np.asarray(palettes.LIPSTICKS[rng.integers(len(palettes.LIPSTICKS))])
    is_dark = tone >= palettes.FIRST_DARK_TONE
    red = np.asarray(palettes.DARK_LIP if is_dark else palettes.LIGHT_LIP)
    return 0.55 * red + 0.45 * skin * (0.90, 0.62, 0.62)


def _sample_iris(rng: np.random.Generator, tone: int) -> np.ndarray:
    """The colour of the eyes; dark skin goes with brown ones. [3]."""
    is_dark = tone >= palettes.FIRST_DARK_TONE
    name = draw_name(rng, palettes.DARK_IRIS_ODDS if is_dark else palettes.IRIS_ODDS)
    return np.asarray(palettes.IRIS_COLORS[name]) * (1 + 0.1 * rng.normal())


def _sample_cloth(rng: np.random.Generator) -> np.ndarray:
    """A colour around the palette: no two subjects wear the same, so it must be seen. [3]."""
    base = palettes.CLOTH_COLORS[rng.integers(len(palettes.CLOTH_COLORS))]
    hue, saturation, value = colorsys.rgb_to_hsv(*base)
    hue = (hue + rng.normal(0, 0.05)) % 1
    saturation = np.clip(saturation * (1 + 0.2 * rng.normal()), 0, 1)
    value = np.clip(value * (1 + 0.15 * rng.normal()), 0.05, 0.95)
    return np.asarray(colorsys.hsv_to_rgb(hue, saturation, value))


def _color(values: np.ndarray) -> Color:
    """A colour inside the cube."""
    red, green, blue = np.clip(values, 0, 1).tolist()
    return red, green, blue


def draw_index(rng: np.random.Generator, odds: Sequence[float]) -> int:
    """An index with relative probabilities."""
    weights = np.asarray(odds)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def draw_name(rng: np.random.Generator, odds: Mapping[str, float]) -> str:
    """A key with relative probabilities."""
    return list(odds)[draw_index(rng, list(odds.values()))]

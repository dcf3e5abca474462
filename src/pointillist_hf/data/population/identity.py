# SPDX-License-Identifier: Apache-2.0
"""Who a subject is: one seed gives one shape, one set of colours, one haircut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import palettes
from .accessories import Earrings, Glasses, sample_accessories
from .appearance import Appearance
from .coloring import draw_index, draw_name, sample_appearance

FEMININE_SHARE = 0.5
BETA_DEVIATION, BETA_LIMIT = 0.85, 2.2


@dataclass(frozen=True, eq=False)
class Identity:
    """Everything that is decided before anything is grown or drawn; lengths in centimetres."""

    seed: int
    is_feminine: bool
    betas: np.ndarray  # [S] standard deviations
    appearance: Appearance

    hair_style: str
    hair_color: np.ndarray  # [3] sRGB
    part: float  # distance of the parting to the subject's left of the middle
    has_bangs: bool
    volume: float  # 1 is typical
    length: float  # 1 is typical
    hairline: float  # height above the typical one

    brow_color: np.ndarray  # [3] sRGB
    brow_height: float  # above the typical one
    brow_thickness: float  # 1 is typical
    beard_style: str | None

    glasses: Glasses | None
    earrings: Earrings | None


def sample_identity(seed: int, shape_names: Sequence[str]) -> Identity:
    """The identity of a seed, on a rig with the given identity directions.

    Example:
        >>> sample_identity(3, ("head_size", "jaw_width")).betas.shape
        (2,)
    """
    rng = np.random.default_rng(seed)
    is_feminine = bool(rng.random() < FEMININE_SHARE)
    betas = sample_betas(rng, is_feminine, shape_names)
    tone = draw_index(rng, [odds for _, odds in palettes.SKIN_TONES])
    is_dark = tone >= palettes.FIRST_DARK_TONE
    hair_odds = palettes.DARK_HAIR_COLOR_ODDS if is_dark else palettes.HAIR_COLOR_ODDS
    hair_name = draw_name(rng, hair_odds)
    style = draw_name(
        rng, palettes.FEMININE_HAIR_ODDS if is_feminine else palettes.MASCULINE_HAIR_ODDS
    )
    has_beard = not is_feminine and rng.random() < 0.5
    beard_style = draw_name(rng, palettes.BEARD_ODDS) if has_beard else None
    is_aged = hair_name in palettes.AGED_HAIR_COLORS
    hairline = float(rng.normal(0, 0.25)) + (0.3 if is_aged else 0.0)
    appearance = sample_appearance(
        rng,
        tone=tone,
        hair_name=hair_name,
        is_feminine=is_feminine,
        hair_tint=palettes.SCALP_TINTS.get(style, palettes.DEFAULT_SCALP_TINT),
        beard_tint=palettes.BEARD_TINTS[beard_style] if beard_style else 0.0,
        hairline=hairline,
    )
    glasses, earrings = sample_accessories(seed, is_feminine=is_feminine, hair_style=style)
    can_have_bangs = is_feminine and style in palettes.STYLES_WITH_BANGS
    return Identity(
        seed=seed,
        is_feminine=is_feminine,
        betas=betas,
        appearance=appearance,
        hair_style=style,
        hair_color=np.asarray(appearance.hair),
        part=float(rng.choice([0.0, 0.0, 2.2, -2.2])),
        has_bangs=bool(can_have_bangs and rng.random() < 0.35),
        volume=float(rng.uniform(0.7, 1.3)),
        length=float(rng.uniform(0.85, 1.15)),
        hairline=hairline,
        brow_color=np.asarray(appearance.brow),
        brow_height=appearance.brow_height,
        brow_thickness=appearance.brow_thickness,
        beard_style=beard_style,
        glasses=glasses,
        earrings=earrings,
    )


def sample_betas(
    rng: np.random.Generator, is_feminine: bool, shape_names: Sequence[str]
) -> np.ndarray:
    """Identity coefficients; directions that the tables do not know are drawn around zero. [S]."""
    betas = rng.normal(0, BETA_DEVIATION, len(shape_names))
    betas = np.clip(betas, -BETA_LIMIT, BETA_LIMIT)
    for i, name in enumerate(shape_names):
        mean = palettes.FEMININE_SHAPE.get(name)
        if mean is not None:
            betas[i] = 0.8 * betas[i] + (mean if is_feminine else -0.25 * mean)
        if name in palettes.SUBTLE_SHAPES:
            betas[i] *= 0.6
        limit = palettes.LIMITED_SHAPES.get(name, np.inf)
        betas[i] = np.clip(betas[i], -limit, limit)
    return _within_joint_limits(betas, shape_names)


def _within_joint_limits(betas: np.ndarray, shape_names: Sequence[str]) -> np.ndarray:
    """The coefficients, moved to where no skin folds over itself. [S]."""
    names = np.asarray(shape_names)
    for mended, minimum, shares in palettes.JOINT_LIMITS:
        weights = np.array([shares.get(name, 0.0) for name in shape_names])
        missing = max(0.0, minimum - float(weights @ betas))
        betas = betas + missing * (names == mended)
    return betas

# SPDX-License-Identifier: Apache-2.0
"""The hairstyles by name, and the hair of one person.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...rigs.procedural.fields import smoothstep, vectors
from ...rigs.procedural.region_masks import scalp_mask
from ...rigs.procedural.template import HeadTemplate
from .cropped_hair import grow_afro, grow_buzz, grow_crop, grow_short, grow_sidepart
from .growth import GrowthRule, Roots, Tress, grow, sample_roots
from .hanging_hair import grow_bob, grow_curly, grow_long
from .identity import Identity
from .strands import unit
from .tied_hair import grow_braids, grow_bun, grow_ponytail

NUM_HAIR_STRANDS = 5200
NUM_BANGS_STRANDS = 900

Hairstyle = Callable[[Roots, Identity, np.random.Generator], list[Tress]]


def grow_bald(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """No hair."""
    return []


HAIR_STYLES: dict[str, Hairstyle] = {
    "bald": grow_bald,
    "buzz": grow_buzz,
    "short": grow_short,
    "crop": grow_crop,
    "sidepart": grow_sidepart,
    "afro": grow_afro,
    "curly": grow_curly,
    "bob": grow_bob,
    "long": grow_long,
    "ponytail": grow_ponytail,
    "bun": grow_bun,
    "braids": grow_braids,
}


def grow_hair(
    template: HeadTemplate, identity: Identity, rng: np.random.Generator, *, density: float = 1.0
) -> list[Tress]:
    """The scalp hair of one person, bangs included; an empty list for a bald one.

    Raises:
        ValueError: The style of the identity is not one of `HAIR_STYLES`.
    """
    if identity.hair_style not in HAIR_STYLES:
        known = ", ".join(HAIR_STYLES)
        raise ValueError(f"`hair_style` must be one of {known}, got {identity.hair_style!r}.")

    def mask(points: np.ndarray) -> np.ndarray:
        return scalp_mask(points, identity.hairline) ** 1.5

    roots = sample_roots(template, mask, max(1, round(NUM_HAIR_STRANDS * density)), rng)
    tresses = HAIR_STYLES[identity.hair_style](roots, identity, rng)
    if identity.has_bangs and tresses:
        tresses.append(grow_bangs(template, identity, rng, density=density))
    return tresses


def grow_bangs(
    template: HeadTemplate, identity: Identity, rng: np.random.Generator, *, density: float = 1.0
) -> Tress:
    """A fringe over the forehead, cut above the eyes."""

    def mask(points: np.ndarray) -> np.ndarray:
        x, _, z = points.T
        forehead = smoothstep(z, 3.2, 5.2) * (np.abs(x) < 5.6)
        return scalp_mask(points, identity.hairline) * forehead

    roots = sample_roots(template, mask, max(1, round(NUM_BANGS_STRANDS * density)), rng)
    lengths = 1.15 * np.maximum(roots.points[:, 1] - 4.6, 0.5) + 1.2

    def direction(points: np.ndarray, progress: float) -> np.ndarray:
        is_over_the_edge = progress >= 0.4
        return unit(
            vectors(
                0.024 * points[:, 0] + 0.05,
                -0.35 if progress < 0.3 else -1.0,
                0.0 if is_over_the_edge else 0.9,
            )
        )

    points = grow(
        roots.points,
        roots.normals,
        direction,
        lengths=lengths + rng.normal(0, 0.25, len(roots)),
        layers=0.35 + 0.7 * rng.random(len(roots)),
        num_steps=12,
        rng=rng,
        rule=GrowthRule(stiffness=0.45, gravity=0.3, curl=0.04, lift=0.6),
    )
    return Tress(points, width=0.19)

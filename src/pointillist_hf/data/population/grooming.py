# SPDX-License-Identifier: Apache-2.0
"""All strands of one person, grown, coloured and bound. Unit centimetres, template frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ...rigs.procedural.template import HeadTemplate
from ...rigs.procedural.weights import build_skin_weights
from .facial_hair import (
    BEARD_STYLES,
    BEARD_WIDTH,
    BROW_WIDTH,
    LASH_WIDTH,
    grow_beard,
    grow_brows,
    grow_lashes,
)
from .growth import Roots
from .hairstyles import grow_hair
from .identity import Identity
from .strands import Strands, bind_to_faces, bind_to_roots, hull_normals

SEED_OFFSET = 7919  # keeps the draws apart from those that made the identity
LASH_COLOR = (0.05, 0.04, 0.04)  # sRGB
JAW_COLUMN = 2
MAX_JAW_WEIGHT = 0.08


def grow_strands(
    template: HeadTemplate, identity: Identity, *, density: float = 1.0
) -> list[Strands]:
    """Hair, brows, lashes and beard of one person; the same identity gives the same strands.

    Args:
        template: The head they grow on.
        identity: Styles, colours and the seed.
        density: Number of strands relative to a full head of 5,200 hairs, > 0.

    Example:
        >>> identity = sample_identity(3, shape_names=("head_size", "jaw_width"))
        >>> strands = grow_strands(build_template(), identity, density=0.35)
    """
    if density <= 0:
        raise ValueError(f"`density` must be positive, got {density}.")
    rng = np.random.default_rng(identity.seed + SEED_OFFSET)
    hair_color = np.asarray(identity.hair_color, dtype=float)
    scalp_faces = _faces_off_the_jaw(_SharedTemplate(template))

    strands = []
    for tress in grow_hair(template, identity, rng, density=density):
        binding = bind_to_faces(tress.points, template.vertices, template.faces, scalp_faces)
        strands.append(_strands(tress.points, tress.width, hair_color, "hair", *binding))

    brows = grow_brows(
        template,
        rng,
        height=identity.brow_height,
        thickness=identity.brow_thickness,
        density=density,
    )
    strands.append(_rooted(*brows, BROW_WIDTH, identity.brow_color))
    lash_length = 1.15 if identity.is_feminine else 0.8
    lashes = grow_lashes(template, rng, length=lash_length, density=density)
    strands.append(_rooted(*lashes, LASH_WIDTH, LASH_COLOR))
    if identity.beard_style in BEARD_STYLES:
        beard = grow_beard(template, rng, style=identity.beard_style, density=density)
        strands.append(_rooted(*beard, BEARD_WIDTH, np.clip(1.05 * hair_color, 0, 1)))
    return strands


@dataclass(frozen=True, eq=False)
class _SharedTemplate:
    """A template as the key of a cache; a record of arrays has no hash, so identity counts."""

    template: HeadTemplate

    def __hash__(self) -> int:
        return id(self.template)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SharedTemplate) and self.template is other.template


@lru_cache(maxsize=4)
def _faces_off_the_jaw(shared: _SharedTemplate) -> np.ndarray:
    """Skin faces that hair may ride on; hair must not follow the jaw. [M]"""
    template = shared.template
    jaw = build_skin_weights(template)[:, JAW_COLUMN]
    is_still = jaw[template.faces].max(1) < MAX_JAW_WEIGHT
    return np.flatnonzero(is_still & (template.face_parts == "skin"))


def _strands(
    points: np.ndarray,
    width: float,
    color: np.ndarray,
    kind: Literal["hair", "face"],
    bindings: np.ndarray,
    barycentric: np.ndarray,
) -> Strands:
    return Strands(
        points=points,
        width=width,
        color=np.asarray(color, dtype=float),
        kind=kind,
        bindings=bindings,
        barycentric=barycentric,
        normals=hull_normals(points, kind),
    )


def _rooted(points: np.ndarray, roots: Roots, width: float, color: np.ndarray) -> Strands:
    """Face hair, bound where it grows."""
    binding = bind_to_roots(points.shape[1], roots.bindings, roots.barycentric)
    return _strands(points, width, color, "face", *binding)

# SPDX-License-Identifier: Apache-2.0
"""A subject of the population: an identity on the template, with its hair and what it wears.

Centimetres; x points to the subject's left, y up, z out of the face. Skinning belongs to the rig:
a subject is told how its vertices move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...rigs.procedural.identity import build_identity_fields
from ...rigs.procedural.template import HeadTemplate, Resolution, build_template
from .accessories import Earrings, Glasses
from .earrings import build_earrings
from .glasses import build_glasses
from .grooming import grow_strands
from .identity import Identity, sample_identity
from .strands import Strands, deform_strands
from .worn import Piece, build_rest_head

METRES_PER_CM = 0.01


@dataclass(frozen=True, eq=False)
class PosedSubject:
    """A subject in one frame."""

    subject: Subject
    vertices: np.ndarray  # [V, 3] world space, centimetres
    strands: tuple[Strands, ...]  # points in world space, centimetres
    worn: tuple[Piece, ...]  # likewise


@dataclass(frozen=True, eq=False)
class Subject:
    """One person, at rest."""

    identity: Identity
    resolution: Resolution
    density: float  # of the hair, relative to a full head
    shape_offsets: np.ndarray  # [V, 3] what the identity adds to the template, centimetres
    strands: tuple[Strands, ...]  # on the template: hair, then brows, lashes, beard if there is one
    worn: tuple[Piece, ...]  # glasses and earrings on the template

    @property
    def template(self) -> HeadTemplate:
        """The head that all subjects of the resolution share."""
        return build_template(self.resolution)

    def pose(self, vertex_offsets: np.ndarray, vertex_transforms: np.ndarray) -> PosedSubject:
        """The subject with its vertices displaced, then skinned, and all that rides on them.

        Args:
            vertex_offsets: Identity, expression and correctives together, centimetres. [V, 3].
            vertex_transforms: Blended joint transforms to world space, centimetres. [V, 3, 4].
        """
        displaced = self.template.vertices + vertex_offsets
        vertices = np.einsum("vxy,vy->vx", vertex_transforms[..., :3], displaced)
        offsets = vertex_offsets.astype(np.float32)
        transforms = vertex_transforms.astype(np.float32)

        def carry(lines: Strands) -> Strands:
            points, normals = deform_strands(lines, self.template.faces, offsets, transforms)
            return replace(lines, points=points, normals=normals)

        return PosedSubject(
            self,
            vertices + vertex_transforms[..., 3],
            strands=tuple(carry(bundle) for bundle in self.strands),
            worn=tuple(replace(piece, lines=carry(piece.lines)) for piece in self.worn),
        )

    def wearing(self, *, glasses: Glasses | None, earrings: Earrings | None) -> Subject:
        """The same person with other accessories, or without.

        Example:
            >>> len(build_subject(3, resolution="low").wearing(glasses=None, earrings=None).worn)
            0
        """
        return replace(
            self,
            identity=replace(self.identity, glasses=glasses, earrings=earrings),
            worn=_fit_accessories(self.resolution, self.shape_offsets, glasses, earrings),
        )

    def at_rest(self) -> PosedSubject:
        """The subject in canonical space: its own shape, zero pose, zero expression."""
        identity = np.broadcast_to(np.eye(3, 4), (len(self.shape_offsets), 3, 4))
        return self.pose(self.shape_offsets, identity)


def build_subject(
    seed: int,
    *,
    resolution: Resolution = "full",
    density: float = 0.35,
    use_accessories: bool = True,
) -> Subject:
    """The subject of a seed.

    Args:
        seed: The same seed gives the same person on every machine.
        resolution: Of the template.
        density: Share of the hair that is grown; what is left gets thicker when it is drawn.
        use_accessories: Whether they wear what the seed gives them, or nothing; `Subject.wearing`
            puts on something else.

    Example:
        >>> build_subject(3, resolution="low").identity.hair_style
        'ponytail'
    """
    names, directions = shape_basis(resolution)
    identity = sample_identity(seed, names)
    if not use_accessories:
        identity = replace(identity, glasses=None, earrings=None)
    offsets = directions @ identity.betas
    return Subject(
        identity=identity,
        resolution=resolution,
        density=density,
        shape_offsets=offsets,
        strands=tuple(grow_strands(build_template(resolution), identity, density=density)),
        worn=_fit_accessories(resolution, offsets, identity.glasses, identity.earrings),
    )


def _fit_accessories(
    resolution: Resolution,
    shape_offsets: np.ndarray,
    glasses: Glasses | None,
    earrings: Earrings | None,
) -> tuple[Piece, ...]:
    """Pieces on the template that fit the shape."""
    head = build_rest_head(resolution, shape_offsets)
    pieces = build_glasses(head, glasses) if glasses else []
    return (*pieces, *(build_earrings(head, earrings) if earrings else []))


@lru_cache
def shape_basis(resolution: Resolution) -> tuple[tuple[str, ...], np.ndarray]:
    """Names [S] and directions of the identity coefficients, centimetres. [V, 3, S]."""
    names, directions = build_identity_fields(build_template(resolution))
    return tuple(names), directions

# SPDX-License-Identifier: Apache-2.0
"""A subject of the population: an identity on the template, with its hair grown.

Centimetres; x points to the subject's left, y up, z out of the face. Skinning belongs to the rig:
a subject is told how its vertices move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...rigs.procedural.identity import build_identity_fields
from ...rigs.procedural.template import HeadTemplate, Resolution, build_template
from .grooming import grow_strands
from .identity import Identity, sample_identity
from .strands import Strands, deform_strands

METRES_PER_CM = 0.01


@dataclass(frozen=True, eq=False)
class PosedSubject:
    """A subject in one frame."""

    subject: Subject
    vertices: np.ndarray  # [V, 3] world space, centimetres
    strands: tuple[Strands, ...]  # points in world space, centimetres


@dataclass(frozen=True, eq=False)
class Subject:
    """One person, at rest."""

    identity: Identity
    resolution: Resolution
    density: float  # of the hair, relative to a full head
    shape_offsets: np.ndarray  # [V, 3] what the identity adds to the template, centimetres
    strands: tuple[Strands, ...]  # on the template: hair, then brows, lashes, beard if there is one

    @property
    def template(self) -> HeadTemplate:
        """The head that all subjects of the resolution share."""
        return build_template(self.resolution)

    def pose(self, vertex_offsets: np.ndarray, vertex_transforms: np.ndarray) -> PosedSubject:
        """The subject with its vertices displaced, then skinned, and its strands carried along.

        Args:
            vertex_offsets: Identity, expression and correctives together, centimetres. [V, 3].
            vertex_transforms: Blended joint transforms to world space, centimetres. [V, 3, 4].
        """
        displaced = self.template.vertices + vertex_offsets
        vertices = np.einsum("vxy,vy->vx", vertex_transforms[..., :3], displaced)
        offsets = vertex_offsets.astype(np.float32)
        transforms = vertex_transforms.astype(np.float32)
        strands = []
        for bundle in self.strands:
            points, normals = deform_strands(bundle, self.template.faces, offsets, transforms)
            strands.append(replace(bundle, points=points, normals=normals))
        return PosedSubject(self, vertices + vertex_transforms[..., 3], tuple(strands))

    def at_rest(self) -> PosedSubject:
        """The subject in canonical space: its own shape, zero pose, zero expression."""
        identity = np.broadcast_to(np.eye(3, 4), (len(self.shape_offsets), 3, 4))
        return self.pose(self.shape_offsets, identity)


def build_subject(seed: int, *, resolution: Resolution = "full", density: float = 0.35) -> Subject:
    """The subject of a seed.

    Args:
        seed: The same seed gives the same person on every machine.
        resolution: Of the template.
        density: Share of the hair that is grown; what is left gets thicker when it is drawn.

    Example:
        >>> build_subject(3, resolution="low").identity.hair_style
        'ponytail'
    """
    names, directions = shape_basis(resolution)
    identity = sample_identity(seed, names)
    return Subject(
        identity=identity,
        resolution=resolution,
        density=density,
        shape_offsets=directions @ identity.betas,
        strands=tuple(grow_strands(build_template(resolution), identity, density=density)),
    )


@lru_cache
def shape_basis(resolution: Resolution) -> tuple[tuple[str, ...], np.ndarray]:
    """Names [S] and directions of the identity coefficients, centimetres. [V, 3, S]."""
    names, directions = build_identity_fields(build_template(resolution))
    return tuple(names), directions

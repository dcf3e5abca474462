# SPDX-License-Identifier: Apache-2.0
"""Things worn on the head: lines with a thickness, bound to its faces as strands are.

A thing is shaped on the head of its wearer at rest and carried back to the template, so that it
fits every identity and then rides along like hair. It is rigid: it holds on to skin that neither
expressions nor the jaw move.

Unit centimetres; x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ...rigs.procedural.expressions import build_expression_fields
from ...rigs.procedural.template import HeadTemplate, Resolution, build_template
from ...rigs.procedural.weights import JOINT_NAMES, build_jaw_weights, build_skin_weights
from .strands import Strands, bind_to_faces, bind_to_roots

MAX_EXPRESSION = 0.05  # cm that an expression may move a face that rigid things hold on to
MIN_HEAD_WEIGHT = 0.98  # of the neck joint, which turns the head


@dataclass(frozen=True)
class Piece:
    """One part of an accessory, of one material: n lines of k points."""

    name: str  # such as "bridge" or "left earring"
    lines: Strands  # of kind "worn"
    radii: np.ndarray  # [n, k] cm, across a line and across its normal; of a lens all zero
    flatness: float = 1.0  # of a tube: thickness along the normal over thickness across
    gloss: tuple[float, float] = (0.3, 40.0)  # strength and exponent of the highlight
    opacity: float = 1.0
    form: Literal["tube", "lens"] = "tube"  # around each line, or between spokes in a circle


@dataclass(frozen=True, eq=False)
class RestHead:
    """The head of one person at rest, on which things are fitted."""

    template: HeadTemplate
    shape_offsets: np.ndarray  # [V, 3] cm
    still_faces: np.ndarray  # [M] skin that rigid things may hold on to

    @property
    def vertices(self) -> np.ndarray:
        """The person's own shape, cm. [V, 3]"""
        return self.template.vertices + self.shape_offsets

    def part_points(self, name: str) -> np.ndarray:
        """Vertices of a part, cm. [n, 3]"""
        return self.vertices[self.template.vertex_parts == name]

    def bind(
        self,
        points: np.ndarray,
        normals: np.ndarray,
        color: tuple[float, float, float],
        face: int | None = None,
    ) -> Strands:
        """Lines at rest as lines on the template.

        Args:
            points: cm. [n, k, 3]
            normals: Unit. [n, k, 3]
            color: sRGB.
            face: Holds all points; without it each point takes the nearest still face.
        """
        faces, (num_lines, num_points) = self.template.faces, points.shape[:2]
        if face is None:
            bindings, barycentric = bind_to_faces(points, self.vertices, faces, self.still_faces)
        else:
            middle = np.full((num_lines, 3), 1 / 3)
            bindings, barycentric = bind_to_roots(num_points, np.full(num_lines, face), middle)
        offsets = np.einsum("nkc,nkcx->nkx", barycentric, self.shape_offsets[faces[bindings]])
        return Strands(
            points=points - offsets,
            width=0.0,
            color=np.asarray(color, float),
            kind="worn",
            bindings=bindings,
            barycentric=barycentric,
            normals=normals,
        )


def build_rest_head(resolution: Resolution, shape_offsets: np.ndarray) -> RestHead:
    """The head of a person with the given offsets from the template, cm. [V, 3]"""
    return RestHead(build_template(resolution), shape_offsets, _still_faces(resolution))


@lru_cache
def _still_faces(resolution: Resolution) -> np.ndarray:
    """Skin faces that neither jaw nor expressions move against the skull. [M]"""
    template = build_template(resolution)
    _, fields = build_expression_fields(template, build_jaw_weights(template))
    motion = np.linalg.norm(fields, axis=1).max(axis=-1)
    head = build_skin_weights(template)[:, JOINT_NAMES.index("neck")]
    is_still = (motion < MAX_EXPRESSION) & (head > MIN_HEAD_WEIGHT)
    return np.flatnonzero(is_still[template.faces].all(1) & (template.face_parts == "skin"))

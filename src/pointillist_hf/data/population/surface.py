# SPDX-License-Identifier: Apache-2.0
"""What every point of the template's surface knows of itself, whoever it belongs to.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...rigs.procedural.ears import ear_distance
from ...rigs.procedural.sculpt import head_distance
from ...rigs.procedural.template import HeadTemplate, Resolution, build_template
from .places import EAR_PARTS, EYE_PARTS, PART_IDS, TEETH_PARTS, SurfacePlaces

OCCLUSION_REACH = (0.25, 0.6, 1.2, 2.2, 3.6)  # above the skin
FAR_FROM_LIDS = 9.0
LIDS_Y = 2.5


@dataclass(frozen=True, eq=False)
class SurfaceAttributes:
    """Vertex attributes in one table, so that one look-up fetches them all."""

    columns: np.ndarray  # [V, 11] place, normal, row, azimuth, upper and lower lid, occlusion
    faces: np.ndarray  # [F, 3]
    part_ids: np.ndarray  # [F] index into PARTS

    def places(
        self, face_ids: np.ndarray, barycentric: np.ndarray
    ) -> tuple[SurfacePlaces, np.ndarray]:
        """Places on faces, and the share of the ambient light that arrives there.

        Args:
            face_ids: [n].
            barycentric: [n, 3].
        """
        values = interpolate(self.columns, self.faces[face_ids], barycentric)
        row_y, azimuth, upper, lower, occlusion = values[:, 6:].T
        places = SurfacePlaces(
            points=values[:, :3],
            normals=values[:, 3:6],
            part_ids=self.part_ids[face_ids],
            row_y=row_y,
            azimuth=azimuth,
            upper_lid_distance=upper,
            lower_lid_distance=lower,
        )
        return places, occlusion


@lru_cache
def build_surface_attributes(resolution: Resolution) -> SurfaceAttributes:
    """Attributes of the template; they are computed once and the same for every identity."""
    template = build_template(resolution)
    upper = _lid_distance(template, "upper")
    # At the corners the lower lid comes close to the upper lid's edge, but has none of its lashes.
    upper = np.where(template.below_eye, np.maximum(upper, 0.35), upper)
    columns = (
        *template.vertices.T,
        *template.normals.T,
        template.row_y,
        np.abs(template.azimuth),
        upper,
        _lid_distance(template, "lower"),
        _ambient_occlusion(template),
    )
    return SurfaceAttributes(
        columns=np.stack(columns, axis=1).astype(np.float32),
        faces=template.faces,
        part_ids=np.array([PART_IDS[str(name)] for name in template.face_parts]),
    )


def interpolate(attributes: np.ndarray, corners: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Vertex attributes [V, D] at places given by corner vertices and weights, [n, 3]. [n, D]."""
    first, second, third = corners.T
    values = attributes[first] * barycentric[:, :1]
    values += attributes[second] * barycentric[:, 1:2]
    values += attributes[third] * barycentric[:, 2:]
    return values


def _lid_distance(template: HeadTemplate, lid: str) -> np.ndarray:
    """Distance of every vertex to the edges of the two upper or the two lower lids. [V]."""
    nearest = np.full(len(template.vertices), FAR_FROM_LIDS)
    _, y, z = template.vertices.T
    close = np.flatnonzero((z > 2) & (np.abs(y - LIDS_Y) < 4))
    steps = np.linspace(0, 1, 6, endpoint=False)[:, None, None]
    for side in ("left", "right"):
        edge = template.vertices[template.eye_edges[f"{side}_{lid}"]]
        between = (edge[:-1] + steps * np.diff(edge, axis=0)).reshape(-1, 3)
        offsets = template.vertices[close, None] - np.concatenate([between, edge[-1:]])
        distances = np.sqrt(np.einsum("vex,vex->ve", offsets, offsets).min(axis=1))
        nearest[close] = np.minimum(nearest[close], distances)
    return nearest


def _ambient_occlusion(template: HeadTemplate) -> np.ndarray:
    """How open the surroundings of every vertex are, from the sculpt's distances. [V]."""
    hidden = np.zeros(len(template.vertices))
    ears = np.isin(template.vertex_parts, EAR_PARTS)
    for i, reach in enumerate(OCCLUSION_REACH):
        above = template.vertices + reach * template.normals
        free = head_distance(above)
        free[ears] = np.minimum(free[ears], ear_distance(above[ears]))
        hidden += 0.5**i * np.maximum(reach - free, 0) / reach
    occlusion = np.clip(1 - 0.62 * hidden, 0.25, 1)
    # Inside the sculpt its distances mean nothing.
    occlusion[np.isin(template.vertex_parts, EYE_PARTS)] = 0.95
    occlusion[np.isin(template.vertex_parts, TEETH_PARTS)] = 0.85
    occlusion[template.tongue] = 0.8
    for rows in template.mouth_bag.values():
        for depth, row in enumerate(rows[1:]):
            occlusion[row] = 0.7 - 0.15 * depth
    return occlusion

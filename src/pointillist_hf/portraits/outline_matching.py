# SPDX-License-Identifier: Apache-2.0
"""Which vertex of the rig a landmark on the outline of the face belongs to, at the present pose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.structures import TensorRecord
from ..rigs.head_rig import HeadRig

# A vertex can be on the outline where its normal is this far from square to the line of sight.
MAX_FACING = 0.35  # cosine


@dataclass(frozen=True)
class OutlineMatches(TensorRecord):
    """For O landmarks in T frames."""

    candidates: Tensor  # [T, O] index among the candidate vertices
    normals: Tensor  # [T, O, 2] of the outline in the image, unit length, y down
    is_near: Tensor  # [T, O] whether there is an outline within reach


def candidate_faces(rig: HeadRig, vertices: Tensor) -> Tensor:
    """Faces between candidate vertices [C], numbered as those are. [F', 3]"""
    numbers = torch.full((len(rig.v_template),), -1).to(rig.faces)
    numbers[vertices] = torch.arange(len(vertices)).to(numbers)
    faces = numbers[rig.faces]
    return faces[(faces >= 0).all(1)]


def match_outline(
    points: Tensor, faces: Tensor, pixels: Tensor, eye: Tensor, landmarks: Tensor, reach: Tensor
) -> OutlineMatches:
    """The nearest vertex on the outline for each landmark.

    Args:
        points: Candidate vertices in the world, metres. [T, C, 3]
        faces: Between them. [F', 3]
        pixels: Where they appear. [T, C, 2]
        eye: The camera, metres. [3]
        landmarks: Pixels. [T, O, 2]
        reach: Largest distance in pixels. [T]
    """
    normals = _vertex_normals(points, faces)
    facing = (normals * normalize(points - eye, dim=-1)).sum(-1)
    distances = torch.cdist(landmarks, pixels)
    distances = distances.masked_fill((facing.abs() > MAX_FACING)[:, None], torch.inf)
    nearest, candidates = distances.min(-1)
    chosen = normals.gather(1, candidates[..., None].expand(-1, -1, 3))
    in_image = chosen[..., :2] * chosen.new_tensor([1.0, -1.0])
    return OutlineMatches(candidates, normalize(in_image, dim=-1), nearest < reach[:, None])


def _vertex_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals. [T, C, 3]"""
    a, b, c = points[:, faces].unbind(2)
    of_faces = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(points)
    for corner in faces.T:
        normals.index_add_(1, corner, of_faces)
    return normalize(normals, dim=-1)

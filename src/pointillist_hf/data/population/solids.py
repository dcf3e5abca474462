# SPDX-License-Identifier: Apache-2.0
"""Worn pieces as meshes: tubes around their lines, and the sheets of lenses. Centimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .strands import unit
from .worn import Piece

NUM_SIDES = 8


@dataclass(frozen=True)
class Solids:
    """A triangle mesh with what shading needs at its vertices."""

    vertices: np.ndarray  # [R, 3] world space
    faces: np.ndarray  # [T, 3]
    columns: np.ndarray  # [R, 11] vertex, colour, normal, strength and exponent of the highlight


def build_solids(pieces: Sequence[Piece]) -> Solids:
    """Posed pieces as one mesh; it is empty if there are none."""
    tables, faces, num_vertices = [np.zeros((0, 11), np.float32)], [np.zeros((0, 3), int)], 0
    for piece in pieces:
        points, normals = _sheet(piece) if piece.form == "lens" else _tubes(piece)
        faces.append(_grid_faces(*points.shape[:3]) + num_vertices)
        shared = (*piece.lines.color, *piece.gloss)
        rest = np.broadcast_to(np.array(shared), (*points.shape[:3], 5))
        table = np.concatenate([points, rest[..., :3], normals, rest[..., 3:]], axis=-1)
        tables.append(table.reshape(-1, 11).astype(np.float32))
        num_vertices += len(tables[-1])
    columns = np.concatenate(tables)
    return Solids(columns[:, :3], np.concatenate(faces), columns)


def line_frames(piece: Piece) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along the lines, across them, and along the normal. [n, k, 3] each."""
    tangents = unit(np.gradient(piece.lines.points, axis=1))
    across = unit(np.cross(tangents, piece.lines.normals))
    return tangents, across, np.cross(across, tangents)


def _tubes(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """Points around every line and their normals. [n, k, sides + 1, 3] each."""
    _, across, upright = (frame[:, :, None] for frame in line_frames(piece))
    turn = np.linspace(0, 2 * np.pi, NUM_SIDES + 1)[:, None]
    cos, sin = np.cos(turn), np.sin(turn)
    offsets = cos * across + piece.flatness * sin * upright
    normals = unit(piece.flatness * cos * across + sin * upright)
    return piece.lines.points[:, :, None] + piece.radii[..., None, None] * offsets, normals


def _sheet(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """The spokes themselves: neighbours share a strip. [1, n, k, 3] each."""
    return piece.lines.points[None], piece.lines.normals[None]


def _grid_faces(num_grids: int, num_rows: int, num_columns: int) -> np.ndarray:
    """Two triangles for each cell of each grid. [T, 3]"""
    ids = np.arange(num_grids * num_rows * num_columns).reshape(num_grids, num_rows, num_columns)
    a, b, c, d = ids[:, :-1, :-1], ids[:, :-1, 1:], ids[:, 1:, :-1], ids[:, 1:, 1:]
    return np.stack([a, b, d, a, d, c], axis=-1).reshape(-1, 3)

# SPDX-License-Identifier: Apache-2.0
"""Canonical point clouds of subjects: common skin in their shape, own hair and accessories.

Every point is bound to a face. As Gaussians the points make a preview without training: discs on
skin and lenses, needles along hair and frames. Metres, in canonical space: own shape, zero pose and
expression.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch

from ...geometry.rotations import matrix_to_quat
from ...rigs.procedural.region_masks import scalp_mask
from ...rigs.procedural.template import vertex_normals
from .painting import surface_color
from .ribbons import strand_brightness
from .skin_places import choose_skin_places, farthest_points, nearest_distances
from .solids import line_frames
from .strands import Strands, unit
from .subject import METRES_PER_CM, PosedSubject, Subject
from .surface import build_surface_attributes, interpolate
from .worn import Piece

STRAND_STRIDE = 3  # every third point of a strand becomes a point of the cloud
POINTS_PER_LONG_STRAND = 9
NUM_BROW_POINTS, NUM_LASH_POINTS = 32, 16  # of both sides together
# Points of a beard, relative to the budget of long hair.
BEARD_SHARES = {"full": 0.2, "long": 0.2, "goatee": 0.12, "moustache": 0.07}
POINTS_PER_BEARD_STRAND = 2
STYLES_WITH_BARE_SCALP = ("bald", "buzz")
BARE_SCALP = 0.5  # of the scalp mask; skin points above it lie under the hair
DISC_RADIUS, DISC_THICKNESS = 0.6, 0.12  # in units of the spacing of the points
NEEDLE_RADIUS = 0.5  # likewise
NEEDLE_FLATNESS = 0.4  # thickness over radius
WORN_SPACING, LENS_SPACING = 1.2, 1.9  # cm along frames and earrings; in lenses
# The number of skin points at which these hold; more skin points bring more of what is worn.
WORN_REFERENCE = 700
# In units of the width of a strand; lashes are few but stay thin.
MAX_NEEDLE_RADII = {"hair": 12.0, "face": 5.0}


@dataclass(frozen=True, eq=False)
class Cloud:
    """N points: skin, then strands, then what is worn."""

    means: np.ndarray  # [N, 3] metres
    bindings: np.ndarray  # [N] face
    normals: np.ndarray  # [N, 3] unit
    colors: np.ndarray  # [N, 3] sRGB, unlit
    scales: np.ndarray  # [N, 3] metres
    quats: np.ndarray  # [N, 4] wxyz
    opacities: np.ndarray  # [N] 1 but for lenses
    is_strand: np.ndarray  # [N] bool
    is_worn: np.ndarray  # [N] bool

    def __len__(self) -> int:
        return len(self.means)


def sample_cloud(
    subject: Subject,
    *,
    num_skin_points: int = 700,
    hair_budget: int = 600,
    own_every_face: bool = False,
) -> Cloud:
    """The cloud of a subject; the same subject gives the same cloud.

    Args:
        subject: Whose cloud it is.
        num_skin_points: Places on the head; those under hair are left out. What is worn gets points
            in proportion, and from 700 on brows and lashes too.
        hair_budget: Points of long hair. Shorter hair gets fewer points, a bald head none.
        own_every_face: Whether each face of the rig has a point in its middle, under hair and
            inside the head too, as fits of captures have it. Takes as many skin points as faces.

    Example:
        >>> len(sample_cloud(build_subject(1)))
        748
    """
    posed = subject.at_rest()
    parts = [_skin_cloud(posed, num_skin_points, own_every_face)]
    parts += _hair_clouds(posed, max(1, hair_budget // POINTS_PER_LONG_STRAND))
    brows, lashes, *beards = [bundle for bundle in posed.strands if bundle.kind == "face"]
    ratio = num_skin_points / WORN_REFERENCE
    for lines, count, place in ((brows, NUM_BROW_POINTS, 2), (lashes, NUM_LASH_POINTS, 3)):
        chosen = _spread_strands(lines, round(count * max(1.0, ratio)))
        parts.append(_strand_cloud(lines, chosen, slice(place, place + 1)))
    for beard in beards:
        num_points = BEARD_SHARES[subject.identity.beard_style] * hair_budget
        chosen = _spread_strands(beard, round(num_points / POINTS_PER_BEARD_STRAND))
        parts.append(_strand_cloud(beard, chosen, slice(2, None, STRAND_STRIDE)))
    parts += [_worn_cloud(piece, ratio**-0.5) for piece in posed.worn]
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Cloud)}
    return Cloud(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def _skin_cloud(posed: PosedSubject, num_points: int, own_every_face: bool) -> Cloud:
    """Discs on the skin, teeth and eyeballs."""
    identity, resolution = posed.subject.identity, posed.subject.resolution
    skin_places = choose_skin_places(num_points, resolution, own_every_face=own_every_face)
    attributes = build_surface_attributes(resolution)
    places, _ = attributes.places(skin_places.bindings, skin_places.barycentric)
    is_visible = np.ones(len(places), bool)
    if identity.hair_style not in STYLES_WITH_BARE_SCALP:
        is_covered = scalp_mask(places.points, identity.hairline) > BARE_SCALP
        is_visible = skin_places.is_owner | ~(is_covered & places.on_parts("skin"))
    template = posed.subject.template
    geometry = [posed.vertices, vertex_normals(posed.vertices, template.faces)]
    values = interpolate(
        np.concatenate(geometry, axis=1),
        template.faces[skin_places.bindings[is_visible]],
        skin_places.barycentric[is_visible],
    )
    normals = unit(values[:, 3:])
    spacing = skin_places.spacing[is_visible, None]
    return _build_cloud(
        points=values[:, :3],
        bindings=skin_places.bindings[is_visible],
        normals=normals,
        tangents=np.cross(normals, [0.577, 0.577, 0.577]),
        colors=surface_color(places[is_visible], identity.appearance),
        sizes=spacing * (DISC_RADIUS, DISC_RADIUS, DISC_THICKNESS),
    )


def _hair_clouds(posed: PosedSubject, num_strands: int) -> list[Cloud]:
    """Needles along a part of the hair; bundles share the strands by their size."""
    bundles = [bundle for bundle in posed.strands if bundle.kind == "hair"]
    total = sum(len(bundle) for bundle in bundles)
    clouds = []
    for bundle in bundles:
        # A small bundle, such as a fringe, keeps one strand however small the budget is.
        share = max(1, round(num_strands * len(bundle) / total))
        chosen = _spread_strands(bundle, share)
        clouds.append(_strand_cloud(bundle, chosen, slice(1, None, STRAND_STRIDE)))
    return clouds


def _spread_strands(bundle: Strands, num_strands: int) -> np.ndarray:
    """Strands whose middles lie far apart. [m]."""
    return farthest_points(bundle.points[:, bundle.points.shape[1] // 2], num_strands)


def _strand_cloud(bundle: Strands, chosen: np.ndarray, along: slice) -> Cloud:
    """Needles at some points of some strands.

    Args:
        bundle: Posed strands, centimetres.
        chosen: Which strands. [m].
        along: Which of their points.
    """
    num_points = bundle.points.shape[1]
    points = bundle.points[chosen]
    tangents = unit(np.gradient(points, axis=1))[:, along]
    lengths = np.linalg.norm(np.diff(points, axis=1), axis=-1).mean(axis=1)  # of a segment
    stride = along.step or num_points
    kept = points[:, along]
    gap = np.median(nearest_distances(kept[:, kept.shape[1] // 2]))
    radius = min(NEEDLE_RADIUS * gap, MAX_NEEDLE_RADII[bundle.kind] * bundle.width)
    half_length = np.broadcast_to(0.5 * stride * lengths[:, None], kept.shape[:2])
    across = np.full(kept.shape[:2], radius)
    sizes = [half_length, across, NEEDLE_FLATNESS * across]
    brightness = strand_brightness(bundle.kind, num_points)[along]
    colors = np.clip(bundle.color * brightness[:, None], 0, 1)
    return _build_cloud(
        points=kept.reshape(-1, 3),
        bindings=bundle.bindings[chosen][:, along].ravel(),
        normals=bundle.normals[chosen][:, along].reshape(-1, 3),
        tangents=tangents.reshape(-1, 3),
        colors=np.broadcast_to(colors, kept.shape).reshape(-1, 3),
        sizes=np.stack(sizes, axis=-1).reshape(-1, 3),
        kind="strand",
    )


def _worn_cloud(piece: Piece, scale: float) -> Cloud:
    """Needles along tubes, or discs in a lens; `scale` stretches their spacing."""
    if piece.form == "lens":
        return _lens_cloud(piece, scale * LENS_SPACING)
    points, (tangents, _, upright) = piece.lines.points, line_frames(piece)
    lengths = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(axis=1)
    # Two points to a needle at least, or the needles would be of uneven lengths.
    most = max(1, points.shape[1] // 2)
    num_parts = min(max(1, round(float(lengths.mean()) / (scale * WORN_SPACING))), most)
    # A needle stands for the points from its first to before the next one's first.
    borders = np.linspace(0, points.shape[1], num_parts + 1).round().astype(int)
    middles = (borders[:-1] + borders[1:] - 1) // 2
    radii = np.maximum.reduceat(piece.radii, borders[:-1], axis=1)
    half_lengths = np.repeat(0.6 * lengths[:, None] / num_parts, num_parts, axis=1)
    sizes = np.stack([half_lengths, radii, piece.flatness * radii], axis=-1)
    colors = np.broadcast_to(piece.lines.color, (*radii.shape, 3))
    return _build_cloud(
        points=points[:, middles].reshape(-1, 3),
        bindings=piece.lines.bindings[:, middles].ravel(),
        normals=upright[:, middles].reshape(-1, 3),
        tangents=tangents[:, middles].reshape(-1, 3),
        colors=colors.reshape(-1, 3),
        sizes=sizes.reshape(-1, 3),
        kind="worn",
    )


def _lens_cloud(piece: Piece, spacing: float) -> Cloud:
    # Not on the rim itself, which has needles of its own.
    points = piece.lines.points[:, :-1].reshape(-1, 3)
    area = np.ptp(points[:, 0]) * np.ptp(points[:, 1])
    chosen = farthest_points(points, max(4, round(area / spacing**2)))
    gap = np.sqrt(area / len(chosen))
    normals = piece.lines.normals[:, :-1].reshape(-1, 3)[chosen]
    return _build_cloud(
        points=points[chosen],
        bindings=piece.lines.bindings[:, :-1].ravel()[chosen],
        normals=normals,
        tangents=np.cross(normals, [0.577, 0.577, 0.577]),
        colors=np.broadcast_to(piece.lines.color, (len(chosen), 3)),
        sizes=np.tile(gap * np.array([DISC_RADIUS, DISC_RADIUS, DISC_THICKNESS]), (len(chosen), 1)),
        opacity=piece.opacity,
        kind="worn",
    )


def _build_cloud(
    *,
    points: np.ndarray,
    bindings: np.ndarray,
    normals: np.ndarray,
    tangents: np.ndarray,
    colors: np.ndarray,
    sizes: np.ndarray,
    opacity: float = 1.0,
    kind: Literal["skin", "strand", "worn"] = "skin",
) -> Cloud:
    """A cloud from centimetres; Gaussians lie along tangent, side and normal."""
    tangents = unit(tangents)
    sides = unit(np.cross(normals, tangents))
    frames = np.stack([tangents, sides, np.cross(tangents, sides)], axis=-1)
    return Cloud(
        means=(METRES_PER_CM * points).astype(np.float32),
        bindings=bindings,
        normals=normals.astype(np.float32),
        colors=colors.astype(np.float32),
        scales=(METRES_PER_CM * sizes).astype(np.float32),
        quats=matrix_to_quat(torch.from_numpy(frames)).float().numpy(),
        opacities=np.full(len(points), opacity, np.float32),
        is_strand=np.full(len(points), kind == "strand"),
        is_worn=np.full(len(points), kind == "worn"),
    )

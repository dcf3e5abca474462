# SPDX-License-Identifier: Apache-2.0
"""From splats on triangles to canonical points (paper Sec. 3.1): the same for everyone's rest pose.

Canonical is the person's own mesh with zero pose and expression; a point is the centre of a splat
there, with the face that carries it. Everything else about a splat the decoder learns anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from ...geometry.bound_splats import local_to_global
from ...geometry.number_checks import check_number
from ...geometry.structures import BoundSplats, CanonicalPoints
from ...models.tokenization_points import PointTokenizer, quantize
from ...rigs.head_rig import HeadRig
from .densification import is_best_of_face

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PointFilter:
    """Which splats become points. The defaults keep all, as the paper does."""

    min_opacity: float = 0.0
    keep_every_face: bool = False  # the most opaque splat of a face stays, whatever its opacity
    # Points of one cell and one face are the same four tokens; the most opaque of them stays.
    merge_duplicates: bool = False
    max_outside: float = 0.005  # share of points outside the cube from which on it is an error

    def __post_init__(self) -> None:
        check_number("min_opacity", self.min_opacity, 0, 1)
        check_number("max_outside", self.max_outside, 0, 1)


@dataclass(frozen=True)
class CanonicalStatistics:
    """What tokenisation does to a cloud."""

    num_splats: int  # before the filter
    num_points: int
    num_outside: int  # of the cube, before clipping or dropping
    shared_cells: float  # share of points in a cell that another point has taken
    duplicates: float  # share of points that share cell and face with another


def canonicalize(
    splats: BoundSplats,
    rig: HeadRig,
    rest_vertices: Tensor,
    tokenizer: PointTokenizer,
    options: PointFilter | None = None,
) -> tuple[CanonicalPoints, CanonicalStatistics]:
    """Canonical points of a fit, ready for the tokenizer.

    Args:
        splats: N splats.
        rig: Of their bindings.
        rest_vertices: The person's mesh at rest, metres. [V, 3]
        tokenizer: Whose cube and cells count.
        options: Which splats become points.

    Raises:
        ValueError: No point is left, a place is not finite, or too many lie outside the cube.
    """
    options = options or PointFilter()
    corners = rest_vertices.double()[rig.faces[splats.bindings]]
    gaussians = local_to_global(splats.to(torch.float64), corners)
    if not torch.isfinite(gaussians.means).all():
        raise ValueError("`splats` must have finite places, got NaN or infinity.")
    kept = _filter(splats.bindings, gaussians.opacities, options)
    means, bindings = gaussians.means[kept].float(), splats.bindings[kept]
    opacities = gaussians.opacities[kept]
    coords = tokenizer.normalize_coords(means)
    num_outside = int((coords.abs() > 1).any(-1).sum())
    if num_outside > options.max_outside * len(means):
        raise ValueError(
            f"{num_outside} of {len(means)} points lie outside the tokenizer's cube (centre "
            f"{tokenizer.cube_center}, half extent {tokenizer.cube_half_extent} m), more than "
            f"`max_outside` = {options.max_outside:.1%}. Choose a larger cube."
        )
    keys = point_keys(coords, bindings, tokenizer)
    if options.merge_duplicates:
        first = is_best_of_face(keys, opacities)
        means, bindings, keys = means[first], bindings[first], keys[first]
    if not len(means):
        raise ValueError("No point is left: lower `min_opacity`.")
    cells = keys // tokenizer.num_faces
    statistics = CanonicalStatistics(
        num_splats=len(splats),
        num_points=len(means),
        num_outside=num_outside,
        shared_cells=1 - len(cells.unique()) / len(cells),
        duplicates=1 - len(keys.unique()) / len(keys),
    )
    return CanonicalPoints(means, bindings), statistics


def point_keys(coords: Tensor, bindings: Tensor, tokenizer: PointTokenizer) -> Tensor:
    """A number for each cell and face; equal ones are equal tokens. [N]"""
    x, y, z = quantize(coords, tokenizer.num_bins).unbind(-1)
    cells = (y * tokenizer.num_bins + z) * tokenizer.num_bins + x
    return cells * tokenizer.num_faces + bindings


def _filter(bindings: Tensor, opacities: Tensor, options: PointFilter) -> Tensor:
    kept = opacities >= options.min_opacity
    return kept | is_best_of_face(bindings, opacities) if options.keep_every_face else kept

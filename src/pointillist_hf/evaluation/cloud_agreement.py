# SPDX-License-Identifier: Apache-2.0
"""Generated clouds against the true ones of the same people: where points are, and how many.

All of it in canonical space, on the person's own head. Lengths in figures are millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from ..refinement.neighbors import nearest_points
from ..rigs.cloud_layout import OFF_SURFACE, measure_distances
from ..rigs.head_rig import HeadRig
from ..rigs.region_faces import find_region_faces
from .rankings import rank_correlation

MM = 1e3
FAR = 0.015  # a point so far from its face, and from all true points, floats; metres
GAP = 0.006  # likewise: a true point on the surface with no other so near lies in a hole
MIN_SPREAD = 1e-6  # of the truth; regions that are alike in everybody correlate with nothing
# Who a point belongs to goes by its face, the first row that names it; what is off the surface
# elsewhere is hair, wherever it hangs.
REGIONS = {
    "eyes": (("eye_left", "eye_right", "eyelids", "eye_region", "brows"), None),
    "ears": (("ear_left", "ear_right"), None),
    "lips": (("lips",), None),
    "beard": (("beard",), True),
    "clothes": (("clothes", "shoulders"), False),
}


def count_regions(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> dict[str, int]:
    """Points of each region, of hair, of the rest of the surface, and of all.

    Args:
        points: Of a person.
        rig: With named regions.
        betas: Of the person. [S]
    """
    is_off = measure_distances(points, rig, betas) > OFF_SURFACE
    left = torch.ones_like(is_off)
    counts = {}
    for name, (masks, wants_off) in REGIONS.items():
        inside = find_region_faces(rig, masks)[points.bindings] & left
        if wants_off is not None:
            inside &= is_off == wants_off
        counts[name] = int(inside.sum())
        left &= ~inside
    counts["scalp_hair"] = int((left & is_off).sum())
    counts["surface"] = int((left & ~is_off).sum())
    return {**counts, "all": len(points)}


def compare_counts(
    made: Sequence[Mapping[str, int]], true: Sequence[Mapping[str, int]]
) -> dict[str, dict[str, float | None]]:
    """How the counts of K people agree, region by region.

    Returns:
        Means of both, and their correlations over the people, Pearson's and that of ranks; None
        where everybody has as many.
    """
    table = {}
    for name in true[0]:
        ours, theirs = (
            torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
            for rows in (made, true)
        )
        row: dict[str, float | None] = {"made": float(ours.mean()), "true": float(theirs.mean())}
        row |= {"correlation": None, "rank_correlation": None}
        if len(ours) > 1 and min(ours.std(), theirs.std()) > MIN_SPREAD:
            row["correlation"] = float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1])
            row["rank_correlation"] = rank_correlation(ours, theirs)
        table[name] = row
    return table


def compare_clouds(
    made: CanonicalPoints, true: CanonicalPoints, rig: HeadRig, betas: Tensor
) -> dict[str, float]:
    """Distances, floaters and holes of a person's cloud.

    Args:
        made: Generated.
        true: Of the data.
        rig: That both are bound to.
        betas: Of the person. [S]
    """
    there = nearest_points(made.means, true.means, 1)[0][:, 0]
    back = nearest_points(true.means, made.means, 1)[0][:, 0]
    floats = (measure_distances(made, rig, betas) > FAR) & (there > FAR)
    is_surface = measure_distances(true, rig, betas) <= OFF_SURFACE
    per_face = made.bindings.bincount(minlength=rig.num_faces)
    return {
        "made_to_true_mm": MM * float(there.mean()),
        "true_to_made_mm": MM * float(back.mean()),
        "surface_to_made_mm": MM * float(back[is_surface].mean()),
        "hair_to_made_mm": MM * float(back[~is_surface].mean()) if (~is_surface).any() else 0.0,
        "floaters": float(floats.sum()),
        "holes": float((back[is_surface] > GAP).sum()),
        "bare_faces": float((per_face == 0).sum()),
        "most_per_face": float(per_face.max()),
    }


def follow_slope(clouds: Sequence[CanonicalPoints], rig: HeadRig, betas: Tensor) -> float | None:
    """How far sampled skin follows the head: 1 with it, 0 not at all.

    The least-squares slope of where the points of a face are against where the face is, both as
    deviations from what they are over the people. None where there is nobody to deviate from.

    Args:
        clouds: Of K people.
        rig: That they are bound to.
        betas: [K, S]
    """
    heads = rig.canonical_vertices(betas)[:, rig.faces].mean(2)  # [K, F, 3]
    sums, counts = torch.zeros_like(heads), heads.new_zeros(heads.shape[:2])
    is_skin = ~find_region_faces(rig, ("scalp", "clothes", "shoulders"))
    for row, (cloud, own) in enumerate(zip(clouds, betas, strict=True)):
        kept = is_skin[cloud.bindings] & (measure_distances(cloud, rig, own) < FAR)
        sums[row].index_add_(0, cloud.bindings[kept], cloud.means[kept])
        counts[row] += cloud.bindings[kept].bincount(minlength=rig.num_faces)
    there = (counts > 0)[..., None]
    shared = there.sum(0).clamp_min(1)
    places = sums / counts.clamp_min(1)[..., None]
    ours = (places - (places * there).sum(0) / shared) * there
    theirs = (heads - (heads * there).sum(0) / shared) * there
    spread = float(theirs.square().sum())
    return float((ours * theirs).sum()) / spread if spread > MIN_SPREAD else None

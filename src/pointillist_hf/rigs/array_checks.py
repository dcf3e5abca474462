# SPDX-License-Identifier: Apache-2.0
"""Whether the arrays of a rig fit together: what is read from disk is looked at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.structures import POSE_NAMES, check_shape
from .head_rig import FLOAT_ARRAYS, INDEX_ARRAYS, HeadRig

MAX_WEIGHT_ERROR = 1e-2  # of the sum of a vertex' skinning weights


def check_rig_arrays(rig: HeadRig) -> None:
    """Refuses a rig whose arrays have other shapes, types or ranges than those of a head.

    Raises:
        ValueError: With the name of the array, the rule and what came.
    """
    vertices, faces, joints = len(rig.v_template), len(rig.faces), len(POSE_NAMES)
    shapes = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, None),
        "exprdirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "lbs_weights": (vertices, joints),
        "landmark_barycentric": (len(rig.landmark_faces), 3),
        "faces": (faces, 3),
        "parents": (joints,),
        "landmark_faces": (len(rig.landmark_faces),),
    }
    for name, shape in shapes.items():
        check_shape(name, getattr(rig, name), shape)
    for name in FLOAT_ARRAYS:
        _check_finite(name, getattr(rig, name))
    for name in INDEX_ARRAYS:
        dtype = getattr(rig, name).dtype
        if dtype not in (torch.int64, torch.int32):
            raise ValueError(f"`{name}` must be whole numbers, got {dtype}.")
    _check_indices("faces", rig.faces, vertices)
    _check_indices("landmark_faces", rig.landmark_faces, faces)
    corners = rig.faces.sort(dim=1).values
    if len(corners.unique(dim=0)) < faces:
        raise ValueError("`faces` must differ from each other, and some stand there twice.")
    for name, mask in rig.named_buffers():
        if name.startswith("mask_"):
            _check_mask(name, mask, vertices)
    _check_parents(rig.parents.tolist())
    error = float((rig.lbs_weights.sum(-1) - 1).abs().max()) if vertices else 0.0
    if error > MAX_WEIGHT_ERROR:
        raise ValueError(f"`lbs_weights` must sum to 1 for each vertex, got an error of {error:g}.")


def _check_finite(name: str, array: Tensor) -> None:
    if not array.is_floating_point() or not array.isfinite().all():
        raise ValueError(f"`{name}` must be finite numbers, got others ({array.dtype}).")


def _check_indices(name: str, array: Tensor, count: int) -> None:
    if array.numel() and (array.min() < 0 or array.max() >= count):
        low, high = int(array.min()), int(array.max())
        raise ValueError(f"`{name}` must be 0 to {count - 1}, got {low} to {high}.")


def _check_mask(name: str, mask: Tensor, vertices: int) -> None:
    """The vertices of a region: each once."""
    check_shape(name, mask, (None,))
    if mask.is_floating_point() or len(mask.unique()) < len(mask):
        raise ValueError(
            f"`{name}` must be vertices, each once, got {mask.dtype} with {len(mask.unique())} of "
            f"{len(mask)} different."
        )
    _check_indices(name, mask, vertices)


def _check_parents(parents: list[int]) -> None:
    """A joint's parent comes before it, so there are no circles."""
    for joint, parent in enumerate(parents):
        if joint and not 0 <= parent < joint:
            raise ValueError(
                f"`parents` must name for each joint one before it, got {parents}: joint {joint} "
                f"has {parent}."
            )

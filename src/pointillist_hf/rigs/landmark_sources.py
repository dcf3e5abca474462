# SPDX-License-Identifier: Apache-2.0
"""Where the landmarks of a rig come from: a table, the rig's own 68, or FLAME's file of 105."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .flame.mediapipe_embedding import read_mediapipe_embedding
from .head_rig import HeadRig
from .landmark_places import (
    COMPONENT_RANGE,
    NUM_LANDMARKS,
    SLIDER_RANGE,
    LandmarkPlaces,
    find_pupils,
    landmark_weights,
)
from .procedural_landmarks import has_table, places_from_table
from .procedural_rig import ProceduralHeadRig

# MediaPipe's counterparts of the 68 iBUG landmarks; the first 17 are the jaw.
IBUG = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
NUM_JAW_LANDMARKS = 17
JAW_BAND = 0.025  # metres around the jaw's landmarks in which the outline is looked for


def find_landmark_places(rig: HeadRig) -> LandmarkPlaces:
    """The landmarks of a rig: from a table for the procedural heads, else through its own 68.

    Raises:
        ValueError: The rig has no landmarks of its own.

    Example:
        >>> len(find_landmark_places(ProceduralHeadRig("low")).ids)
        386
    """
    if isinstance(rig, ProceduralHeadRig) and has_table(rig):
        return places_from_table(rig)
    return places_from_ibug(rig)


def places_from_ibug(rig: HeadRig) -> LandmarkPlaces:
    """The 51 landmarks inside the face through the rig's 68; those of the jaw are its outline.

    Raises:
        ValueError: The rig has no landmarks of its own.
    """
    if len(rig.landmark_faces) != len(IBUG):
        raise ValueError(
            f"`rig` must have the {len(IBUG)} iBUG landmarks, and this {type(rig).__name__} has "
            f"{len(rig.landmark_faces)}. For FLAME pass `landmarks` to `from_flame`."
        )
    inside = slice(NUM_JAW_LANDMARKS, None)
    ids = rig.faces.new_tensor(IBUG[inside])
    outline_ids, outline_vertices = _outline(rig)
    return LandmarkPlaces(
        ids=ids,
        faces=rig.landmark_faces[inside],
        barycentric=rig.landmark_barycentric[inside],
        weights=landmark_weights(ids).to(rig.v_template),
        offsets=rig.v_template.new_zeros(len(ids), 3),
        outline_ids=outline_ids,
        outline_vertices=outline_vertices,
        pupils=find_pupils(rig),
        shape_priors=rig.v_template.new_ones(rig.num_betas),
        expression_priors=rig.v_template.new_ones(rig.num_expressions),
        expression_range=_expression_range(rig),
    )


def places_from_embedding(rig: HeadRig, path: str | Path) -> LandmarkPlaces:
    """The 105 landmarks of FLAME's mediapipe_landmark_embedding.npz.

    The jaw is not among them: its outline comes from the rig's own landmarks, where it has them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or made for another mesh.
    """
    embedding = read_mediapipe_embedding(path, num_faces=rig.num_faces, num_landmarks=NUM_LANDMARKS)
    ids = torch.from_numpy(embedding.ids).to(rig.faces)
    barycentric = torch.from_numpy(embedding.barycentric).to(rig.v_template)
    outline_ids, outline_vertices = _outline(rig)
    return LandmarkPlaces(
        ids=ids,
        faces=torch.from_numpy(embedding.faces).to(rig.faces),
        barycentric=barycentric,
        weights=landmark_weights(ids).to(rig.v_template),
        offsets=torch.zeros_like(barycentric),
        outline_ids=outline_ids,
        outline_vertices=outline_vertices,
        pupils=find_pupils(rig),
        shape_priors=rig.v_template.new_ones(rig.num_betas),
        expression_priors=rig.v_template.new_ones(rig.num_expressions),
        expression_range=_expression_range(rig),
    )


def _outline(rig: HeadRig) -> tuple[Tensor, Tensor]:
    """Landmarks of the jaw [O] and vertices near them [C]; none for a rig without landmarks."""
    nothing = rig.faces.new_zeros(0)
    if len(rig.landmark_faces) != len(IBUG):
        return nothing, nothing
    jaw_points = rig.landmarks(rig.v_template[None])[0, :NUM_JAW_LANDMARKS]
    distances = torch.cdist(rig.v_template, jaw_points).amin(1)
    ids = rig.faces.new_tensor(IBUG[:NUM_JAW_LANDMARKS])
    return ids, torch.nonzero(distances < JAW_BAND).flatten()


def _expression_range(rig: HeadRig) -> tuple[float, float]:
    return SLIDER_RANGE if isinstance(rig, ProceduralHeadRig) else COMPONENT_RANGE

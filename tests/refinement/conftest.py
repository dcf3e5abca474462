# SPDX-License-Identifier: Apache-2.0
"""A photograph of small size with its fit, and a cloud that was completed by it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from view_sizes import LARGE

from pointillist_hf.portraits.landmark_fit import fit_landmarks
from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.portraits.portrait_tracker import PortraitTracker
from pointillist_hf.refinement.coloring import color_points
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.face_kinds import find_face_kinds
from pointillist_hf.refinement.portrait_view import frame_portrait
from pointillist_hf.refinement.projection import project_onto_portrait
from pointillist_hf.rigs.landmark_sources import find_landmark_places

ROOT = Path(__file__).parents[2]
SIZE, DENSITY = 128, 0.15


@pytest.fixture(scope="session")
def portrait():
    tracker = PortraitTracker.from_pretrained(
        ROOT / "model_cards/pointillist-tiny/portrait_tracker"
    )
    return tracker(ROOT / "examples/images/astronaut.jpg")[0]


@pytest.fixture(scope="session")
def portrait_fit(portrait, tiny_rig):
    return fit_landmarks(
        tiny_rig,
        portrait.landmarks[None],
        portrait.irises[None],
        width=portrait.width,
        height=portrait.height,
    )


@pytest.fixture(scope="session")
def view(portrait, portrait_fit):
    return frame_portrait(portrait, portrait_fit.cameras, portrait_fit.rig_params, size=SIZE)


@pytest.fixture(scope="session")
def large_view(portrait, portrait_fit):
    """In which a millimetre can be told."""
    return frame_portrait(portrait, portrait_fit.cameras, portrait_fit.rig_params, size=LARGE)


@pytest.fixture(scope="session")
def face_kinds(tiny_rig):
    return find_face_kinds(tiny_rig)


@pytest.fixture(scope="session")
def cloud(view, tiny_rig):
    places = find_landmark_places(tiny_rig)
    return complete_points(None, view, tiny_rig, places=places, density=DENSITY)


@pytest.fixture(scope="session")
def plain_view(view):
    """The same person in clothes of one colour."""
    below = torch.arange(SIZE)[:, None] > view.landmarks[CHIN, 1] + 0.35 * view.eye_distance
    dark = view.foreground.new_tensor([0.10, 0.12, 0.30]).expand_as(view.foreground)
    return replace(view, foreground=torch.where(below[..., None], dark, view.foreground))


@pytest.fixture(scope="session")
def projected(cloud, view, tiny_rig):
    return project_onto_portrait(
        cloud.points,
        tiny_rig,
        view.rig_params,
        view.cameras,
        view.matte,
        normals=cloud.normals,
        kinds=cloud.kinds,
    )


@pytest.fixture(scope="session")
def colored(cloud, projected, view, tiny_rig):
    return cloud.to_gaussians(color_points(cloud, projected, view, tiny_rig))

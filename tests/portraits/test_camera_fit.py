# SPDX-License-Identifier: Apache-2.0
"""The camera of a photograph whose head somebody else has tracked."""

import torch

from pointillist_hf.geometry.cameras import orbit_cameras, project_points
from pointillist_hf.geometry.triangles import interpolate_corners
from pointillist_hf.portraits.camera_fit import fit_camera
from pointillist_hf.rigs.landmark_sources import find_landmark_places


def test_landmarks_of_a_known_camera_bring_it_back(tiny_rig):
    g = torch.Generator().manual_seed(0)
    params = tiny_rig.neutral(betas=torch.randn(1, tiny_rig.num_betas, generator=g))
    vertices = tiny_rig(params)[0]
    known = orbit_cameras([25.0], [8.0], distance=1.2, width=300, height=200)
    known.Ks[:, :2, :2] *= 1.1
    places = find_landmark_places(tiny_rig)
    marks = interpolate_corners(vertices, tiny_rig.faces, places.faces, places.barycentric)
    pixels, depths = project_points(marks, known)
    landmarks = torch.zeros(468, 3)
    scale = known.Ks[0, 0, 0] / 1.2
    landmarks[places.ids] = torch.cat([pixels[0], scale * depths[0, :, None]], dim=-1)
    found = fit_camera(tiny_rig, params, landmarks, width=300, height=200)
    here, _ = project_points(vertices, known)
    there, _ = project_points(vertices, found)
    assert (here - there).norm(dim=-1).max() < 1.5  # pixels, shoulders included
    assert (project_points(marks, found)[0] - pixels).norm(dim=-1).max() < 0.1

# SPDX-License-Identifier: Apache-2.0
"""Nearest pixels, connected parts: each against the plain way to find them."""

import torch
from scipy.ndimage import distance_transform_edt, label

from pointillist_hf.refinement.distance_maps import (
    keep_large_parts,
    label_parts,
    nearest_pixels,
    signed_distances,
)


def test_nearest_pixels_are_exact():
    mask = torch.rand(37, 61) > 0.97
    distances, nearest = nearest_pixels(mask)
    assert torch.allclose(distances, torch.from_numpy(distance_transform_edt(~mask)).float())
    assert mask.flatten()[nearest].all()
    row, column = torch.meshgrid(torch.arange(37), torch.arange(61), indexing="ij")
    way = torch.stack([nearest // 61 - row, nearest % 61 - column]).float().norm(dim=0)
    assert torch.allclose(way, distances)


def test_signed_distances_change_sign_at_the_border():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[3:6, 3:6] = True
    distances = signed_distances(mask)
    assert distances[4, 4] == 1.5
    assert distances[3, 4] == 0.5
    assert distances[2, 4] == -0.5
    assert (signed_distances(torch.ones(4, 4, dtype=torch.bool)) > 0).all()


def test_parts_are_those_of_scipy():
    mask = torch.rand(40, 50) > 0.45
    parts, count = label(mask.numpy())
    own = label_parts(mask)
    assert len(own.unique()) == count + 1
    pairs = torch.stack([own.flatten(), torch.from_numpy(parts).flatten()]).unique(dim=1)
    assert pairs.shape[1] == count + 1
    kept = keep_large_parts(mask, 5)
    sizes = torch.bincount(torch.from_numpy(parts).flatten().long())
    assert int(kept.sum()) == int(sizes[1:][sizes[1:] >= 5].sum())

# SPDX-License-Identifier: Apache-2.0
"""Nearest pixels, connected parts: each against the plain way to find them."""

import torch
from scipy.ndimage import distance_transform_edt, label

from pointillist_hf.refinement.distance_maps import (
    carry_outwards,
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


def test_the_background_does_not_come_through_the_border():
    matte = torch.zeros(32, 32)
    matte[8:24, 8:24] = 1
    matte[7, 8:24] = matte[24, 8:24] = 0.5
    image = torch.zeros(32, 32, 3)
    image[..., 1] = 1
    image[8:24, 8:24] = torch.tensor([1.0, 0, 0])
    carried = carry_outwards(image, matte)
    # Two pixels inside the border nothing but the subject is left, and so it is outside.
    assert torch.allclose(carried[3:5, 12:20], torch.tensor([1.0, 0, 0]).expand(2, 8, 3), atol=1e-5)
    assert torch.equal(carried[12:20, 12:20], image[12:20, 12:20])

# SPDX-License-Identifier: Apache-2.0
"""Who is cast, and how portraits become photographs."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pointillist_hf.data.population.casting import RARITIES, cast_seeds
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.data.population.photography import take_snapshots
from pointillist_hf.data.population.skin_places import choose_skin_places
from pointillist_hf.data.population.snapshots import photograph, sample_backdrop, snapshot_cameras
from pointillist_hf.data.population.subject import build_subject, shape_basis
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.portraits.image_processing_portrait import FRAME_MIDDLE
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

WAYS = {"resolution": "low", "use_accessories": True}


def shares(seeds):
    names, _ = shape_basis("low")
    people = [sample_identity(seed, names) for seed in seeds]
    return {name: np.mean([has(person) for person in people]) for name, has in RARITIES.items()}


def test_what_is_rare_is_cast_more_often():
    usual, cast = (shares(cast_seeds(7, 200, rare_share=share, **WAYS)) for share in (0.0, 0.9))
    for name in RARITIES:
        assert cast[name] > usual[name] + 0.07, name


def test_more_people_begin_with_the_same_ones():
    few, many = (cast_seeds(7, count, rare_share=0.5, **WAYS) for count in (10, 40))
    assert many[:10] == few
    assert all(first < second for first, second in pairwise(many))
    assert cast_seeds(7, 3, rare_share=0.0, **WAYS) == (7, 8, 9)


def test_nobody_is_cast_for_glasses_that_nobody_wears():
    seeds = cast_seeds(7, 60, rare_share=1.0, resolution="low", use_accessories=False)
    names, _ = shape_basis("low")
    wanted = [has for name, has in RARITIES.items() if name != "glasses"]
    assert all(any(has(sample_identity(seed, names)) for has in wanted) for seed in seeds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rare_share": 1.5}, "`rare_share` must be"),
        ({"rare_share": 0.5, "num_train": 200_000}, "must be at most 100000 where people are cho"),
        ({"own_every_face": True}, "`num_skin_points` must be at least 3682"),
    ],
)
def test_what_cannot_be_cast_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SyntheticDatasetConfig(**given)


@pytest.mark.parametrize("seed", [1, 3])
def test_every_face_has_a_point_that_hair_does_not_hide(seed):
    subject = build_subject(seed, resolution="low", density=0.1)
    points = {"num_skin_points": 3800, "hair_budget": 90}
    cloud = sample_cloud(subject, own_every_face=True, **points)
    is_skin = ~cloud.is_strand & ~cloud.is_worn
    num_faces = len(subject.template.faces)
    assert len(np.unique(cloud.bindings[is_skin])) == num_faces
    # The owners come first, each in the middle of its face.
    middles = subject.at_rest().vertices[subject.template.faces].mean(axis=1) / 100
    np.testing.assert_array_equal(cloud.bindings[:num_faces], np.arange(num_faces))
    np.testing.assert_allclose(cloud.means[:num_faces], middles, atol=1e-6)
    assert is_skin.sum() <= 3800


def test_places_beyond_the_owners_fill_the_widest_gaps():
    places = choose_skin_places(3800, "low", own_every_face=True)
    assert places.is_owner.sum() == 3682
    assert np.isfinite(places.spacing).all()


def test_every_lens_shows_the_head_in_the_frame():
    cameras = snapshot_cameras(np.random.default_rng(0), 40, size=100)
    places, depths = project_points(torch.tensor([FRAME_MIDDLE]), cameras)
    assert (places[:, 0] - 50).abs().max() < 8
    assert depths.min() < 0.6 and depths.max() > 2.0
    sides = cameras.Ks[:, 0, 0] / depths[:, 0]  # pixels of a metre in the middle of the head
    assert sides.std() / sides.mean() < 0.06


def test_a_photograph_keeps_the_person_and_cuts_the_world_away():
    image = np.zeros((64, 64, 4), np.float32)
    image[16:48, 16:48] = 0.6, 0.4, 0.3, 1.0
    taken = np.stack([photograph(image, np.random.default_rng(seed)) for seed in range(20)])
    assert taken.min() >= 0 and taken.max() <= 1
    assert (taken[:, :8, :, 3] == 0).all()
    assert (taken[:, 24:40, 24:40, 3] == 1).all()
    colors = taken[:, 24:40, 24:40, :3].mean(axis=(1, 2))
    assert colors.std(axis=0).min() > 0.02  # tones differ
    assert np.abs(colors.mean(axis=0) - image[32, 32, :3]).max() < 0.12
    assert taken[:, 24:40, 24:40, :3].std(axis=(1, 2)).max() > 0.005  # noise


def test_backdrops_differ_and_stay_in_range():
    drawn = np.stack([sample_backdrop(np.random.default_rng(seed), 32) for seed in range(8)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert drawn.mean(axis=(1, 2)).std(axis=0).min() > 0.03


def test_snapshots_are_where_their_cameras_say():
    subject, rig = build_subject(7, resolution="low", density=0.05), ProceduralHeadRig("low")
    taken = take_snapshots(subject, rig, 3, size=64)
    again = take_snapshots(subject, rig, 3, size=64)
    np.testing.assert_array_equal(taken.images, again.images)
    posed = rig(taken.rig_params)
    for place in range(3):
        pixels, _ = project_points(posed[place], taken.cameras[place : place + 1])
        pixels = pixels[0].floor().long().clamp(0, 63)
        alpha = torch.from_numpy(taken.images[place])[pixels[:, 1], pixels[:, 0], 3]
        assert (alpha > 0).float().mean() > 0.95

# SPDX-License-Identifier: Apache-2.0
"""The population: one seed, one person; pictures and clouds that fit each other."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from pointillist_hf.data.population import palettes
from pointillist_hf.data.population.cloud import Cloud, sample_cloud
from pointillist_hf.data.population.hairstyles import HAIR_STYLES
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.data.population.noise import value_noise
from pointillist_hf.data.population.painting import surface_color
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.shading import sample_lighting
from pointillist_hf.data.population.skin_places import choose_skin_places
from pointillist_hf.data.population.subject import Subject, build_subject, shape_basis
from pointillist_hf.data.population.surface import build_surface_attributes
from pointillist_hf.geometry.cameras import orbit_cameras

CUBE_CENTRE, CUBE_HALF = np.array([0, -0.035, -0.03]), 0.25


@lru_cache
def cached_subject(seed: int) -> Subject:
    return build_subject(seed, resolution="low", density=0.1)


@lru_cache
def seeds_of(style: str, count: int = 1) -> tuple[int, ...]:
    names, _ = shape_basis("low")
    found = (s for s in range(500) if sample_identity(s, names).hair_style == style)
    return tuple(next(found) for _ in range(count))


@lru_cache
def cloud_of(seed: int) -> Cloud:
    return sample_cloud(cached_subject(seed), num_skin_points=300)


def frame_of(subject: Subject, **options: object) -> np.ndarray:
    camera = orbit_cameras([10.0], distance=1.2, target=(0, -0.03, 0), width=48, height=48)
    return render_frame(subject.at_rest(), camera, **options)


def test_a_seed_always_gives_the_same_person():
    first, second = (build_subject(3, resolution="low", density=0.1) for _ in range(2))
    assert first.identity.appearance == second.identity.appearance
    np.testing.assert_array_equal(first.identity.betas, second.identity.betas)
    np.testing.assert_array_equal(sample_cloud(first).means, sample_cloud(second).means)
    np.testing.assert_array_equal(frame_of(first), frame_of(second))


def test_seeds_give_different_people():
    first, second = cached_subject(0), cached_subject(1)
    assert first.identity.appearance != second.identity.appearance
    assert np.abs(first.shape_offsets - second.shape_offsets).max() > 0.1
    assert not np.array_equal(frame_of(first), frame_of(second))


def share_turned_over(subject: Subject) -> float:
    """Share of the faces that look away from where they look on the mean head."""
    corners = subject.template.faces.T
    means, own = (
        np.cross(v[corners[1]] - v[corners[0]], v[corners[2]] - v[corners[0]])
        for v in (subject.template.vertices, subject.at_rest().vertices)
    )
    return float((np.einsum("fx,fx->f", means, own) < 0).mean())


def test_brows_stand_over_the_eyes():
    # Of the first thousand people this one has the weakest brows over the foremost eyes.
    person = build_subject(26, density=0.01)
    assert share_turned_over(person) < 0.002
    names, directions = shape_basis("full")
    weak_brow = person.identity.betas - 0.8 * (np.array(names) == "brow_ridge")
    weak = replace(person, shape_offsets=directions @ weak_brow)
    assert share_turned_over(weak) > 1.5 * share_turned_over(person)


def test_every_style_of_the_tables_can_be_grown():
    drawn = palettes.FEMININE_HAIR_ODDS.keys() | palettes.MASCULINE_HAIR_ODDS.keys()
    assert drawn <= HAIR_STYLES.keys()


def test_clothes_are_never_quite_the_same():
    names, _ = shape_basis("low")
    colors = {sample_identity(seed, names).appearance.cloth for seed in range(40)}
    assert len(colors) == 40


@pytest.mark.parametrize("seed", range(4))
def test_frames_are_pictures_with_a_clear_background(seed: int):
    frame = frame_of(cached_subject(seed))
    assert frame.shape == (48, 48, 4) and frame.dtype == np.float32
    assert np.isfinite(frame).all() and frame.min() >= 0 and frame.max() <= 1
    assert (frame[0, [0, -1], 3] == 0).all()
    assert (frame[18:34, 20:28, 3] == 1).all()


def test_light_changes_the_colours_and_nothing_else():
    subject = cached_subject(1)
    lightings = [sample_lighting(np.random.default_rng(seed)) for seed in range(2)]
    frames = [frame_of(subject, lighting=lighting) for lighting in lightings]
    np.testing.assert_array_equal(frames[0][..., 3], frames[1][..., 3])
    assert np.abs(frames[0] - frames[1]).max() > 0.02


def test_a_moved_head_moves_in_the_picture():
    subject = cached_subject(1)
    camera = orbit_cameras([0.0], width=48, height=48)
    transforms = np.tile(np.eye(3, 4), (len(subject.shape_offsets), 1, 1))
    transforms[:, 0, 3] = 6.0
    moved = render_frame(subject.pose(subject.shape_offsets, transforms), camera)
    columns = np.arange(48) * moved[..., 3]
    assert columns.sum() / moved[..., 3].sum() > 28


def test_a_frame_has_one_camera():
    with pytest.raises(ValueError, match="one camera"):
        render_frame(cached_subject(1).at_rest(), orbit_cameras([0.0, 1.0]))


@pytest.mark.parametrize("seed", range(6))
def test_clouds_are_bound_and_inside_the_cube(seed: int):
    cloud, subject = cloud_of(seed), cached_subject(seed)
    assert cloud.bindings.min() >= 0
    assert cloud.bindings.max() < len(subject.template.faces)
    assert np.abs(cloud.means - CUBE_CENTRE).max() < CUBE_HALF
    assert (cloud.scales > 0).all() and cloud.colors.min() >= 0 and cloud.colors.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(cloud.quats, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1, atol=1e-5)


def test_hair_decides_the_number_of_points():
    counts = {
        style: int(cloud_of(seeds_of(style)[0]).is_strand.sum())
        for style in ("bald", "short", "long")
    }
    assert counts["bald"] < counts["short"] < counts["long"]


def test_bald_heads_share_the_places_of_their_skin():
    first, second = (cloud_of(seed) for seed in seeds_of("bald", 2))
    np.testing.assert_array_equal(
        first.bindings[~first.is_strand], second.bindings[~second.is_strand]
    )
    assert not np.array_equal(first.means[:100], second.means[:100])


def test_hair_hides_skin_points():
    haired, bald = cloud_of(seeds_of("long")[0]), cloud_of(seeds_of("bald")[0])
    assert (~haired.is_strand).sum() < (~bald.is_strand).sum()


def test_fewer_places_are_a_prefix_of_more():
    many, few = choose_skin_places(60, "low"), choose_skin_places(30, "low")
    np.testing.assert_array_equal(many.bindings[:30], few.bindings)


def test_colours_stay_in_range_all_over_the_head():
    subject = cached_subject(2)
    attributes = build_surface_attributes("low")
    face_ids = np.arange(len(subject.template.faces))
    places, occlusion = attributes.places(face_ids, np.full((len(face_ids), 3), 1 / 3))
    colors = surface_color(places, subject.identity.appearance)
    assert np.isfinite(colors).all() and colors.min() >= 0 and colors.max() <= 1
    assert occlusion.min() > 0 and occlusion.max() <= 1


def test_noise_is_smooth_and_fills_its_range():
    line = np.linspace(-5, 5, 4001)[:, None] * np.array([1.0, 0.7, -0.3])
    values = value_noise(line, 3.0)
    assert values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0.5
    assert np.abs(np.diff(values)).max() < 0.05

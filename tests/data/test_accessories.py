# SPDX-License-Identifier: Apache-2.0
"""Glasses and earrings: who wears them, where they sit, how they move, what they look like."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from pointillist_hf.data.population import palettes
from pointillist_hf.data.population.accessories import (
    Earrings,
    Glasses,
    sample_accessories,
    sample_earrings,
    sample_glasses,
)
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.earrings import find_lobe
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.data.population.photography import pose_subject
from pointillist_hf.data.population.relief import build_relief
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.strands import (
    barycentric_coordinates,
    nearest_points,
    unit,
)
from pointillist_hf.data.population.subject import Subject, build_subject, shape_basis
from pointillist_hf.data.population.worn import build_rest_head
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, sample_person
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.rigs.procedural.template import vertex_normals
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

GOLD, BLACK = (0.8, 0.6, 0.3), (0.04, 0.04, 0.04)
ROUND = Glasses("round", is_metal=True, color=GOLD)
SUNGLASSES = Glasses("square", False, BLACK, lens_color=(0.03, 0.03, 0.03), lens_opacity=0.9)
HOOPS = Earrings("hoop", metal=GOLD, stone=GOLD)
SIDES = {"left": 1, "right": -1}


@lru_cache
def bare_subject(seed: int = 1) -> Subject:
    return build_subject(seed, resolution="low", density=0.05, use_accessories=False)


def wearing(glasses=None, earrings=None, seed=1):
    return bare_subject(seed).wearing(glasses=glasses, earrings=earrings)


def points_of(posed, word):
    """Points of all pieces whose name holds the word, cm. [n, 3]"""
    found = [piece.lines.points.reshape(-1, 3) for piece in posed.worn if word in piece.name]
    return np.concatenate(found)


def frame_of(subject, azimuth=0.0, size=96):
    camera = orbit_cameras([azimuth], fov=13.0, target=(0, 0, 0), width=size, height=size)
    return render_frame(subject.at_rest(), camera)


@pytest.fixture(scope="module")
def low_rig():
    return ProceduralHeadRig("low")


# Who wears what -----------------------------------------------------------------------------------


def test_shares_are_those_of_the_tables():
    people = [sample_identity(seed, ("head_size",)) for seed in range(3000)]
    assert 0.16 < np.mean([p.glasses is not None for p in people]) < 0.20
    assert 0.13 < np.mean([p.earrings is not None for p in people]) < 0.17
    shown = {p.hair_style for p in people if p.earrings}
    assert shown <= set(palettes.STYLES_WITH_FREE_EARS)
    assert {p.glasses.style for p in people if p.glasses} == set(palettes.FRAME_ODDS)


def test_accessories_change_no_other_draw(monkeypatch):
    people = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(palettes, "GLASSES_SHARE", share)
        people.append([sample_identity(seed, ("head_size",)) for seed in range(20)])
    for without, within in zip(*people, strict=True):
        assert without.glasses is None and within.glasses is not None
        assert without.earrings == within.earrings
        assert without.appearance == within.appearance
        assert (without.part, without.length, without.brow_height) == (
            within.part,
            within.length,
            within.brow_height,
        )
        np.testing.assert_array_equal(without.betas, within.betas)


def test_a_seed_always_wears_the_same():
    first, second = (
        sample_accessories(seed, is_feminine=True, hair_style="bun") for seed in (8, 8)
    )
    assert first == second
    once, twice = (wearing(ROUND, HOOPS).worn for _ in range(2))
    for one, two in zip(once, twice, strict=True):
        np.testing.assert_array_equal(one.lines.points, two.lines.points)
        np.testing.assert_array_equal(one.lines.bindings, two.lines.bindings)


def test_unknown_styles_are_refused():
    with pytest.raises(ValueError, match=r"`glasses` must be one of .*'aviator'.* got 'monocle'"):
        Glasses("monocle", True, GOLD)
    with pytest.raises(ValueError, match=r"`earrings` must be one of .* got 'plug'"):
        Earrings("plug", GOLD, GOLD)
    with pytest.raises(ValueError, match="`glasses`"):
        sample_glasses(np.random.default_rng(0), "monocle")


def test_data_sets_can_do_without(low_rig):
    config = SyntheticDatasetConfig(
        num_skin_points=60, hair_budget=20, num_portraits=1, num_views=1, image_size=16
    )
    names, _ = shape_basis("low")
    seed = next(s for s in range(99) if sample_identity(s, names).glasses)
    dressed, bare = (
        sample_person(seed, "train", low_rig, replace(config, use_accessories=use))
        for use in (True, False)
    )
    assert len(dressed.points) > len(bare.points)


# Where they sit -----------------------------------------------------------------------------------


def test_the_relief_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    points, faces = rng.uniform(-1, 1, (30, 3)), rng.integers(0, 30, (40, 3))
    relief = build_relief(points, faces, low=(-1, -1), high=(1, 1), spacing=0.1)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 2, indexing="ij"), axis=-1)
    expected = np.full((21, 21), -np.inf)
    for a, b, c in points[faces]:
        edges = np.stack([b - a, c - a], axis=1)
        if abs(np.linalg.det(edges[:2])) < 1e-9:
            continue
        v, w = np.moveaxis((grid - a[:2]) @ np.linalg.inv(edges[:2]).T, -1, 0)
        inside = (v >= 0) & (w >= 0) & (v + w <= 1)
        height = np.where(inside, a[2] + edges[2, 0] * v + edges[2, 1] * w, -np.inf)
        expected = np.maximum(expected, height)
    agree = np.isclose(relief.heights, expected, atol=2e-3)
    assert agree.mean() > 0.99  # samples on an edge may fall to either side
    wide = relief.widened(0.2)
    assert wide.heights[10, 10] == relief.heights[8:13, 8:13].max()
    np.testing.assert_array_equal(relief.over(grid), relief.heights)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_nothing_enters_the_head(first):
    names, directions = shape_basis("low")
    subject = bare_subject()
    for seed in range(first, first + 10):
        rng = np.random.default_rng(seed)
        style = list(palettes.FRAME_ODDS)[seed % 6]
        offsets = directions @ sample_identity(seed, names).betas
        person = replace(subject, shape_offsets=offsets).wearing(
            glasses=sample_glasses(rng, style),
            earrings=sample_earrings(rng, list(palettes.EARRING_ODDS)[seed % 3]),
        )
        check_seat(person)


def check_seat(person):
    posed, template = person.at_rest(), person.template
    skin = template.faces[np.isin(template.face_parts, ("skin", "lid", "eye_left", "eye_right"))]
    corners, normals = posed.vertices[skin], vertex_normals(posed.vertices, skin)
    for piece in posed.worn:
        points = piece.lines.points.reshape(-1, 3)
        nearest = nearest_points(points, corners.mean(1))
        weights = barycentric_coordinates(points, corners[nearest])
        offsets = points - np.einsum("nc,ncx->nx", weights, corners[nearest])
        outward = unit(np.einsum("nc,ncx->nx", weights, normals[skin[nearest]]))
        assert np.einsum("nx,nx->n", offsets, outward).min() > -0.08, piece.name
    for side, sign in SIDES.items():
        eye = posed.vertices[template.vertex_parts == f"eye_{side}"]
        ear = posed.vertices[template.vertex_parts == f"ear_{side}"]
        middle = (eye.min(0) + eye.max(0)) / 2
        lens = points_of(posed, f"{side} lens")
        radius = np.linalg.norm(eye - middle, axis=1).max()
        assert np.linalg.norm(lens - middle, axis=1).min() > radius + 0.3
        assert (sign * lens[:, 0] > 0.3).all()
        # The pupil lies behind the lens.
        assert lens[:, 0].min() < middle[0] < lens[:, 0].max()
        assert lens[:, 1].min() < middle[1] < lens[:, 1].max()
        temple = points_of(posed, "temples")
        temple = temple[sign * temple[:, 0] > 0]
        assert temple[:, 2].min() < ear[:, 2].mean()
        assert np.linalg.norm(temple[:, None] - ear, axis=-1).min() < 1.0
        ring = points_of(posed, f"{side} earring")
        assert (sign * ring[:, 0] > 3).all()
        assert np.linalg.norm(ring[:, None] - ear, axis=-1).min() < 0.35


@pytest.mark.parametrize("style", ["hoop", "drop"])
def test_earrings_hang_from_the_lobe(style):
    subject = wearing(earrings=Earrings(style, GOLD, GOLD))
    head = build_rest_head("low", subject.shape_offsets)
    for side, sign in SIDES.items():
        lobe = find_lobe(head, side, sign)
        ring = points_of(subject.at_rest(), f"{side} earring")
        assert lobe.point[1] - 2.2 < ring[:, 1].min() < lobe.point[1] - 1.0
        assert ring[:, 1].max() < lobe.point[1] + 0.15
        assert np.linalg.norm(ring - lobe.point, axis=1).min() < 0.2


def test_metal_rests_on_pads_and_plastic_on_its_bridge():
    names = {piece.name for piece in wearing(ROUND).worn}
    assert "pads" in names and "brow bar" not in names
    posed = wearing(SUNGLASSES).at_rest()
    skin = posed.vertices[posed.subject.template.vertex_parts == "skin"]
    gaps = np.linalg.norm(points_of(posed, "bridge")[:, None] - skin, axis=-1)
    assert gaps.min() < 0.45


# How they move ------------------------------------------------------------------------------------


def test_glasses_heed_neither_jaw_nor_expressions(low_rig):
    subject = wearing(ROUND, HOOPS)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)[None]
    neutral = low_rig.neutral(betas=betas)
    rest = pose_subject(subject, low_rig, neutral)[0]
    faces = {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 1.0, "browInnerUp": 1.0, "cheekPuff": 1.0}
    moved = replace(
        neutral,
        expression=low_rig.expression(faces),
        jaw_pose=torch.tensor([[0.3, 0.0, 0.0]]),
        leye_pose=torch.tensor([[0.0, 0.3, 0.0]]),
    )
    lively = pose_subject(subject, low_rig, moved)[0]
    assert np.abs(lively.vertices - rest.vertices).max() > 1.5
    for before, after in zip(rest.worn, lively.worn, strict=True):
        assert np.abs(after.lines.points - before.lines.points).max() < 0.1, before.name


def test_everything_turns_with_the_neck(low_rig):
    subject = wearing(ROUND, HOOPS)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)[None]
    neutral = low_rig.neutral(betas=betas)
    turned = replace(neutral, neck_pose=torch.tensor([[0.0, 0.5, 0.0]]))
    rest, after = (pose_subject(subject, low_rig, p)[0] for p in (neutral, turned))
    # The eyeballs are rigid, so they tell what the head did.
    ids = np.flatnonzero(subject.template.vertex_parts == "eye_left")
    before, behind = rest.vertices[ids], after.vertices[ids]
    u, _, v = np.linalg.svd((behind - behind.mean(0)).T @ (before - before.mean(0)))
    turn = u @ v
    for old, new in zip(rest.worn, after.worn, strict=True):
        expected = (old.lines.points - before.mean(0)) @ turn.T + behind.mean(0)
        np.testing.assert_allclose(new.lines.points, expected, atol=0.05)
        np.testing.assert_allclose(new.lines.normals, old.lines.normals @ turn.T, atol=0.02)
        assert np.abs(new.lines.points - old.lines.points).max() > 1


# What they look like ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 3])
def test_without_accessories_a_person_looks_as_if_there_were_none(seed):
    bare = bare_subject(seed)
    removed = bare.wearing(glasses=ROUND, earrings=HOOPS).wearing(glasses=None, earrings=None)
    np.testing.assert_array_equal(frame_of(removed), frame_of(bare))
    clouds = sample_cloud(removed, num_skin_points=99), sample_cloud(bare, num_skin_points=99)
    np.testing.assert_array_equal(clouds[0].means, clouds[1].means)
    assert not np.array_equal(frame_of(wearing(ROUND, HOOPS, seed)), frame_of(bare))


def test_clear_lenses_show_the_eyes_and_sunglasses_hide_them():
    bare, clear, dark = (frame_of(wearing(g)) for g in (None, ROUND, SUNGLASSES))
    eye = slice(36, 42), slice(56, 62)  # the left one, from the front
    assert np.abs(clear[eye] - bare[eye]).mean() < 0.06
    assert dark[eye][..., :3].mean() < 0.5 * bare[eye][..., :3].mean()
    for picture in (bare, clear, dark):
        assert (picture[eye][..., 3] == 1).all()
        assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


def test_a_lens_before_the_background_is_half_transparent():
    without, clear, dark = (
        frame_of(wearing(g), azimuth=75.0)[..., 3] for g in (None, ROUND, SUNGLASSES)
    )
    glassy = (without == 0) & (clear > 0) & (clear < 0.9)
    assert glassy.sum() > 10
    assert dark[without == 0].sum() > clear[without == 0].sum()


def test_gaussians_of_accessories_are_bound_and_come_last():
    subject = wearing(SUNGLASSES, HOOPS)
    cloud, bare = (sample_cloud(s, num_skin_points=300) for s in (subject, bare_subject()))
    assert cloud.is_worn.sum() == len(cloud) - len(bare) > 40
    np.testing.assert_array_equal(cloud.means[~cloud.is_worn], bare.means)
    assert not (cloud.is_worn & cloud.is_strand).any()
    assert cloud.bindings.min() >= 0 and cloud.bindings.max() < len(subject.template.faces)
    assert (cloud.scales > 0).all() and np.isfinite(cloud.quats).all()
    np.testing.assert_allclose(np.linalg.norm(cloud.quats, axis=1), 1, atol=1e-5)
    assert set(np.unique(cloud.opacities)) == {np.float32(0.9), np.float32(1)}
    assert cloud.is_worn[cloud.opacities < 1].all()
    parts = subject.template.face_parts[cloud.bindings[cloud.is_worn]]
    assert set(parts) == {"skin", "ear_left", "ear_right"}
    more = sample_cloud(subject, num_skin_points=1200)
    assert more.is_worn.sum() > 1.5 * cloud.is_worn.sum()


def test_gaussians_lie_on_the_frame():
    subject = wearing(ROUND)
    cloud = sample_cloud(subject)
    lines = points_of(subject.at_rest(), "")
    worn = 100 * cloud.means[cloud.is_worn]
    assert np.linalg.norm(worn[:, None] - lines, axis=-1).min(1).max() < 1e-4
    long = cloud.scales[cloud.is_worn & (cloud.opacities == 1)]
    assert (long[:, 0] > long[:, 1]).mean() > 0.9

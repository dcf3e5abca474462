# SPDX-License-Identifier: Apache-2.0
"""Holes, exploded splats and floaters: none on a whole head, and each that is planted is found."""

import importlib
import json
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pointillist_hf import Avatar
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.geometry.triangles import face_areas
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds

BENCHMARK = Path(__file__).parents[2] / "benchmarks/poses.py"
sys.path.append(str(BENCHMARK.parent))
heads_faults = importlib.import_module("heads.faults")
count_pose_faults, find_exploded = heads_faults.count_pose_faults, heads_faults.find_exploded
CAMERAS = orbit_cameras([0.0, 90.0], width=96, height=96)


@pytest.fixture(scope="module")
def head(tiny_rig):
    """A head with an opaque ball on every face."""
    means = tiny_rig.v_template[tiny_rig.faces].mean(1)
    count = len(means)
    size = 0.7 * face_areas(tiny_rig.v_template, tiny_rig.faces).sqrt().clamp(2e-3, 0.02)
    balls = Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4),
        scales=size[:, None].expand(-1, 3),
        opacities=torch.full((count,), 0.98),
        colors=torch.full((count, 3), 0.5),
    )
    return Avatar(balls, torch.arange(count), tiny_rig, torch.zeros(tiny_rig.num_betas))


def changed(avatar, **fields):
    return Avatar(replace(avatar.gaussians, **fields), avatar.bindings, avatar.rig, avatar.betas)


def nose(avatar):
    return int(avatar.gaussians.means[:, 2].argmax())


def moved(avatar, splat, shift):
    means = avatar.gaussians.means.clone()
    means[splat] += torch.tensor(shift)
    return changed(avatar, means=means)


@pytest.mark.parametrize("jaw", [0.0, 0.3])
def test_a_whole_head_has_no_faults(head, jaw):
    frame = head.rig_params({"mouthSmile": 1.0}, jaw_pose=[jaw, 0.0, 0.0])
    assert count_pose_faults(head, frame, CAMERAS).is_clean


def test_a_hole_is_where_the_background_shines(head):
    means = head.gaussians.means
    bored = (means[:, 0].abs() < 0.04) & ((means[:, 1] - means[nose(head), 1]).abs() < 0.04)
    opacities = head.gaussians.opacities.masked_fill(bored, 0.0)
    faults = count_pose_faults(changed(head, opacities=opacities), head.rig_params(), CAMERAS)
    assert faults.hole_pixels > 20
    assert not faults.is_clean
    assert faults.missing_percent < 1  # the nose, from the side
    # What is open to the outside is no hole.
    low = means[:, 1] < means[:, 1].mean()
    half = changed(head, opacities=head.gaussians.opacities.masked_fill(low, 0.0))
    faults = count_pose_faults(half, head.rig_params(), CAMERAS)
    assert faults.missing_percent > 10
    assert faults.hole_pixels == 0


def test_a_splat_explodes_if_it_grows_and_is_long(head):
    rest = head.gaussians
    scales = rest.scales.clone()
    scales[:3] = torch.tensor([1e-3, 2e-3, 5e-3])
    rest = replace(rest, scales=scales)
    grown = scales.clone()
    grown[0, 1] = 0.009  # from 5 mm: not three times
    grown[1] *= 1.5  # 7.5 mm
    grown[2, 0] = 0.016
    assert find_exploded(rest, replace(rest, scales=grown)).nonzero().flatten().tolist() == [2]
    small = replace(rest, scales=rest.scales.clamp(max=1e-3))
    tripled = replace(small, scales=4 * small.scales)  # 4 mm
    assert not find_exploded(small, tripled).any()


def test_a_splat_floats_off_the_skin_and_off_the_hair(head, tiny_rig):
    frame = head.rig_params()
    tip = nose(head)
    faults = count_pose_faults(moved(head, tip, [0.0, 0.0, 0.03]), frame, CAMERAS)
    assert (faults.floaters, faults.islands) == (1, 1)
    assert json.loads(json.dumps(asdict(faults)))["islands"] == 1
    assert count_pose_faults(moved(head, tip, [0.0, 0.0, 0.01]), frame, CAMERAS).floaters == 0
    # Nobody sees what lies inside the head, or is transparent.
    assert count_pose_faults(moved(head, tip, [0.0, 0.0, -0.06]), frame, CAMERAS).floaters == 0
    opacities = head.gaussians.opacities.clone()
    opacities[tip] = 0.05
    faint = moved(changed(head, opacities=opacities), tip, [0.0, 0.0, 0.03])
    assert count_pose_faults(faint, frame, CAMERAS).is_clean
    hair = find_face_kinds(tiny_rig).kinds == PointKind.HAIR
    top = int(head.gaussians.means[:, 1].masked_fill(~hair, -1.0).argmax())
    assert count_pose_faults(moved(head, top, [0.0, 0.04, 0.0]), frame, CAMERAS).floaters == 0
    assert count_pose_faults(moved(head, top, [0.0, 0.07, 0.0]), frame, CAMERAS).floaters == 1


def test_a_lock_before_the_cheek_is_hair(head):
    # The five splats nearest to the tip of the nose, a finger's breadth before it.
    means = head.gaussians.means.clone()
    near = (means - means[nose(head)]).norm(dim=-1).argsort()[:5]
    for distance, count in ((0.03, 0), (0.09, 5)):
        lock = means.clone()
        lock[near] = means[nose(head)] + torch.tensor([0.0, 0.0, distance])
        lock[near, 0] += torch.linspace(-0.005, 0.005, 5)
        faults = count_pose_faults(changed(head, means=lock), head.rig_params(), CAMERAS)
        assert faults.floaters == count


def test_floaters_are_judged_where_the_head_is_posed(head):
    turned = head.rig_params(neck_pose=[0.0, 0.6, 0.0], transl=[0.02, 0.0, 0.0])
    assert count_pose_faults(head, turned, CAMERAS).floaters == 0
    far = moved(head, nose(head), [0.0, 0.0, 0.03])
    assert count_pose_faults(far, turned, CAMERAS).floaters == 1


@pytest.mark.slow
def test_the_benchmark_runs(tiny_pipeline, tmp_path, monkeypatch):
    tiny_pipeline.save_pretrained(tmp_path / "model")
    words = ["--model", "model", "--num_people", "2", "--size", "64", "--output", "poses"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["poses.py", *words])
    for _ in range(2):  # the second time reads what is there
        runpy.run_path(str(BENCHMARK), run_name="__main__")
    figures = json.loads((tmp_path / "poses/poses.json").read_text())
    assert (figures["people"], figures["without_a_face"]) == (2, 0)
    assert len(figures["by_pose"]) == 8
    # A handful of splats leave most of the head bare.
    assert figures["clean_poses_percent"] == 0
    assert figures["missing_percent"] > 10
    assert (tmp_path / "poses/worst.png").is_file()

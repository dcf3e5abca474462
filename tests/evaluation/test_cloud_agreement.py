# SPDX-License-Identifier: Apache-2.0
"""Generated clouds against true ones: limits that are known, and the benchmark at its smallest."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from pointillist_hf import (
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    GaussianDecoderConfig,
    PointGeneratorForCausalLM,
)
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.evaluation.cloud_agreement import (
    compare_clouds,
    compare_counts,
    count_regions,
    follow_slope,
    measure_distances,
)
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.recipes import (
    build_conditioner_config,
    build_generator_config,
    build_image_processor,
)

BENCHMARK = Path(__file__).parents[2] / "benchmarks/clouds.py"


def centres(rig, betas):
    """A point in the middle of each face."""
    means = rig.canonical_vertices(betas[None])[0][rig.faces].mean(1)
    return CanonicalPoints(means, torch.arange(rig.num_faces))


def outwards(points, rig, betas, distance):
    """The points that far in front of their faces."""
    normals = rig.face_anchors(betas[None])[0, points.bindings, 3:]
    return CanonicalPoints(points.means + distance * normals, points.bindings)


@pytest.fixture
def heads(tiny_rig):
    return torch.randn(4, tiny_rig.num_betas)


def test_distances_are_from_the_own_face(tiny_rig, heads):
    points = centres(tiny_rig, heads[0])
    assert measure_distances(points, tiny_rig, heads[0]).max() < 1e-5
    moved = outwards(points, tiny_rig, heads[0], 0.01)
    found = measure_distances(moved, tiny_rig, heads[0])
    torch.testing.assert_close(found, torch.full_like(found, 0.01), atol=1e-5, rtol=0)


def test_a_cloud_agrees_with_itself(tiny_rig, heads):
    points = centres(tiny_rig, heads[0])
    figures = compare_clouds(points, points, tiny_rig, heads[0])
    assert figures.pop("most_per_face") == 1
    assert all(value == pytest.approx(0, abs=1e-4) for value in figures.values())


def test_floaters_and_holes_are_counted(tiny_rig, heads):
    true = centres(tiny_rig, heads[0])
    tip = true.means[:, 2].argmax()
    gone = (true.means - true.means[tip]).norm(dim=-1) < 0.02
    few = CanonicalPoints(true.means[~gone], true.bindings[~gone])
    figures = compare_clouds(few, true, tiny_rig, heads[0])
    assert figures["bare_faces"] == gone.sum()
    assert 0 < figures["holes"] < gone.sum()
    assert figures["floaters"] == 0
    assert figures["made_to_true_mm"] == pytest.approx(0, abs=1e-4)
    # A nose's length in front of the nose, and as far behind nothing at all.
    means = true.means.clone()
    means[tip] += torch.tensor([0.0, 0.0, 0.03])
    figures = compare_clouds(CanonicalPoints(means, true.bindings), true, tiny_rig, heads[0])
    assert figures["floaters"] == 1
    assert compare_clouds(true, true, tiny_rig, heads[0])["floaters"] == 0


def test_every_point_is_of_one_region(tiny_rig, heads):
    true = centres(tiny_rig, heads[0])
    counts = count_regions(true, tiny_rig, heads[0])
    assert counts["scalp_hair"] == counts["beard"] == 0
    assert counts["eyes"] > 0
    assert counts["lips"] > 0
    lifted = count_regions(outwards(true, tiny_rig, heads[0], 0.02), tiny_rig, heads[0])
    assert lifted["beard"] > 0
    assert lifted["scalp_hair"] > lifted["surface"] == 0
    for found in (counts, lifted):
        assert sum(found.values()) == 2 * found["all"] == 2 * tiny_rig.num_faces


def test_counts_correlate_where_people_differ():
    true = [{"hair": n, "eyes": 5} for n in (10, 20, 30, 80)]
    twice = [{"hair": 2 * n["hair"], "eyes": 5} for n in true]
    table = compare_counts(twice, true)
    assert table["hair"] == {
        "made": 70.0,
        "true": 35.0,
        "correlation": pytest.approx(1),
        "rank_correlation": pytest.approx(1),
    }
    assert table["eyes"]["correlation"] is None
    assert compare_counts(true[::-1], true)["hair"]["rank_correlation"] == pytest.approx(-1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_slope_is_how_far_skin_follows(tiny_rig, heads, share):
    # Small heads' differences: points that stay behind must not count as hair.
    heads = 0.3 * heads
    clouds = [centres(tiny_rig, share * betas) for betas in heads]
    assert follow_slope(clouds, tiny_rig, heads) == pytest.approx(share, abs=1e-3)


def test_nobody_deviates_alone(tiny_rig, heads):
    assert follow_slope([centres(tiny_rig, heads[0])], tiny_rig, heads[:1]) is None


def test_the_benchmark_runs(tmp_path, monkeypatch):
    config = SyntheticDatasetConfig(
        num_train=1,
        num_test=3,
        num_bins=64,
        num_skin_points=60,
        hair_budget=30,
        num_portraits=1,
        num_views=0,
        image_size=64,
    )
    build_synthetic_dataset(tmp_path / "data", config, show_progress=False)
    people = load_people(tmp_path / "data", "test", token_order="byzx")
    write_model(people, tmp_path / "model")
    words = ["--data", "data", "--model", "model", "--num_people", "3", "--num_scored", "2"]
    words += ["--batch_size", "2", "--max_points", "30", "--output", "clouds.json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["clouds.py", *words])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    figures = json.loads((tmp_path / "clouds.json").read_text())
    assert figures["people"] == 3
    assert figures["true_follow_slope"] == pytest.approx(1, abs=0.1)
    assert figures["points"]["all"]["made"] <= 30
    assert set(figures["nats"]) == {"right", "mean", "wrong"}
    assert figures["nats"]["right"]["nats_per_point"] > 0


def write_model(people, folder):
    tokenizer = people.tokenizer
    generator = PointGeneratorForCausalLM(build_generator_config("nano-anchored", tokenizer))
    settings = {"cube_center": list(tokenizer.cube_center), "bin_size": tokenizer.bin_size}
    settings |= {"cube_half_extent": tokenizer.cube_half_extent, "hidden_size": 32}
    settings |= {"num_hidden_layers": 1, "num_attention_heads": 2, "inputs": "positions"}
    AvatarPipeline(
        image_processor=build_image_processor("nano"),
        rig=people.rig,
        conditioner=AvatarConditioner(build_conditioner_config("nano-anchored", tokenizer)),
        tokenizer=tokenizer,
        point_generator=generator,
        gaussian_decoder=GaussianDecoder(GaussianDecoderConfig(**settings)),
    ).save_pretrained(folder)

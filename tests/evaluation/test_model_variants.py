# SPDX-License-Identifier: Apache-2.0
"""Pipelines over a benchmark, and Table 2 from a folder of trained variants."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from pointillist_hf import GaussianDecoder
from pointillist_hf.cli import app
from pointillist_hf.evaluation.benchmark_run import EvaluationConfig, run_benchmark
from pointillist_hf.evaluation.manifest import read_manifest
from pointillist_hf.evaluation.model_variants import find_variants, load_variant, model_digest
from pointillist_hf.evaluation.own_renders import PipelineRun, check_rig, render_pipeline
from pointillist_hf.evaluation.renders import find_renders

QUIET = EvaluationConfig(table=2, show_progress=False)


@pytest.fixture(scope="module")
def model(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


def write_decoder(decoder, folder, seed):
    """The decoder as another training might have left it."""
    torch.manual_seed(seed)
    other = GaussianDecoder(decoder.config).eval()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other.save_pretrained(folder / "gaussian_decoder")


@pytest.fixture
def variants(tiny_decoder, tmp_path):
    folder = tmp_path / "ablation"
    for seed in range(3):
        write_decoder(tiny_decoder, folder / "positions" / f"seed_{seed}", seed)
    (folder / "both").mkdir()
    (folder / "both/pipeline.json").write_text(json.dumps({"max_points": 5}))
    titles = {"positions": "AR Position", "both": "AvatarPointillist"}
    (folder / "variants.json").write_text(json.dumps(titles))
    return folder


def test_a_pipeline_runs_over_a_benchmark(model, face_benchmark, tmp_path, tiny_rig):
    manifest, out = read_manifest(face_benchmark), tmp_path / "out"
    run = PipelineRun(str(model))
    render_pipeline(run, face_benchmark, manifest, out, show_progress=False)
    found = find_renders("own", out, manifest)
    assert found.files.keys() == {item.item_id for item in manifest.items}
    assert found.about["seconds_per_avatar"] > 0 and found.about["frames_per_second"] > 0
    sizes = [path.stat().st_size for path in (out / "avatars").glob("*.splat")]
    assert found.about["bytes_per_avatar"] == sum(sizes) / 2
    # What is there is left alone; a person of whom something is missing is made again, the same.
    first, last = (found.files[item.item_id] for item in (manifest.items[0], manifest.items[-1]))
    kept, before = last.stat().st_mtime_ns, first.read_bytes()
    first.unlink()
    render_pipeline(run, face_benchmark, manifest, out, show_progress=False)
    assert first.read_bytes() == before and last.stat().st_mtime_ns == kept
    copy = shutil.copytree(model, tmp_path / "copy")
    render_pipeline(PipelineRun(str(copy)), face_benchmark, manifest, out, show_progress=False)
    with pytest.raises(ValueError, match="renders of another run: `seed` was 0, and is 1"):
        render_pipeline(replace(run, seed=1), face_benchmark, manifest, out)
    (copy / "point_generator/model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match="renders of another run: `weights`"):
        render_pipeline(PipelineRun(str(copy)), face_benchmark, manifest, out)
    with pytest.raises(ValueError, match="tracks are of FlameHeadRig and `model` has"):
        check_rig(tiny_rig, replace(manifest, rig=None))


def test_table_2_has_a_row_for_each_variant(model, variants, face_benchmark, tmp_path):
    words = ["evaluate", face_benchmark, "-o", tmp_path / "out", "--model", model]
    ended = CliRunner().invoke(app, [*map(str, words), "--variants", str(variants)])
    assert ended.exit_code == 0, ended.output
    assert "4 systems in " in ended.output
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [*results["figures"]] == ["AR Position", "AvatarPointillist"]
    trained = [f"AR Position seed_{seed}" for seed in range(3)]
    assert [*results["systems"]] == [*trained, "AvatarPointillist"]
    assert {*results["trainings"]} == {*trained}
    means = torch.tensor([results["trainings"][s]["self"]["psnr"]["mean"] for s in trained])
    row = results["figures"]["AR Position"]["self"]["psnr"]
    assert row["mean"] == pytest.approx(means.double().mean().item(), rel=1e-5)
    assert row["deviation"] == pytest.approx(means.double().std().item(), rel=1e-4)
    assert len({*means.tolist()}) == 3 and row["low"] is None and row["num_systems"] == 3
    pair = results["comparisons"]["self"]["psnr"]
    assert [(p["first"], p["second"]) for p in pair] == [("AR Position", "AvatarPointillist")]
    text = (tmp_path / "out/results.md").read_text()
    assert text.startswith("## Table 2") and "Cross reenactment" in text
    heading = text.splitlines()[2]
    assert "self LPIPS" in heading and "cross" not in heading and "MB per avatar" in heading
    assert f"{row['mean']:.2f}" in text and ", 3 trainings]" in text
    assert (tmp_path / "out/index.html").read_text().count("<th>AR Position</th>") == 2


def test_a_variant_is_the_model_but_for_what_it_brings(model, variants, tiny_pipeline):
    trained, settings = variants / "positions/seed_1", variants / "both"
    pipe = load_variant(str(model), trained)
    own, other = (p.gaussian_decoder.state_dict() for p in (tiny_pipeline, pipe))
    assert any(not torch.equal(own[name], other[name]) for name in own)
    generators = (p.point_generator.state_dict() for p in (tiny_pipeline, pipe))
    assert all(torch.equal(a, b) for a, b in zip(*(g.values() for g in generators), strict=True))
    assert load_variant(str(model), settings).config.max_points == 5
    assert load_variant("nowhere", model).config.max_points == 6
    assert (
        model_digest(model, trained)
        != model_digest(model, settings)
        == model_digest(model, settings)
    )
    assert model_digest("somebody/on-the-hub", trained) is None


def test_folders_of_variants_are_checked(variants, face_benchmark, tmp_path):
    found = find_variants(variants)
    assert [len(trainings) for trainings in found.values()] == [3, 1]
    (variants / "variants.json").write_text('{"positions": "A"}')
    with pytest.raises(ValueError, match="a title of its own to each of both, positions"):
        find_variants(variants)
    (variants / "variants.json").unlink()
    assert [*find_variants(variants)] == ["both", "positions"]
    (variants / "empty").mkdir()
    with pytest.raises(ValueError, match="`variants` must hold model_index"):
        find_variants(variants)
    with pytest.raises(FileNotFoundError, match="`variants` must be a folder of variants"):
        find_variants(tmp_path / "none")
    with pytest.raises(ValueError, match="`model` must be given with `variants`"):
        run_benchmark(face_benchmark, tmp_path / "out", [], QUIET, variants=variants)

# SPDX-License-Identifier: Apache-2.0
"""From renders to results: what is known comes out, nothing is lost when a run is stopped."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from pointillist_hf.cli import app
from pointillist_hf.evaluation import scoring
from pointillist_hf.evaluation.benchmark_run import (
    EvaluationConfig,
    evaluate_renders,
    parse_renders,
)
from pointillist_hf.evaluation.instruments import InstrumentPaths
from pointillist_hf.evaluation.manifest import read_manifest
from pointillist_hf.evaluation.metric_catalogue import CATALOGUE, check_paper_columns
from pointillist_hf.evaluation.renders import find_renders
from pointillist_hf.evaluation.report_page import to_html
from pointillist_hf.evaluation.scoring import SystemScores
from pointillist_hf.evaluation.statistics import mean_over_people, set_over_people
from pointillist_hf.evaluation.summary import floor_of_fid, summarise
from pointillist_hf.evaluation.tables import paper_table

QUIET = {"show_progress": False}


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    scoring._instruments.cache_clear()
    scoring._picture.cache_clear()
    yield
    scoring._instruments.cache_clear()
    scoring._picture.cache_clear()


def write_renders(benchmark, folder, blur):
    """The targets, blurred: the more, the worse."""
    folder.mkdir()
    for item in read_manifest(benchmark).items:
        with Image.open(benchmark / "targets" / f"{item.target}.png") as picture:
            picture.filter(ImageFilter.GaussianBlur(blur)).save(folder / f"{item.item_id}.png")
    return folder


@pytest.fixture
def systems(benchmark_folder, tmp_path):
    return {
        name: write_renders(benchmark_folder, tmp_path / name, blur)
        for name, blur in (("bad", 4), ("good", 1), ("fair", 2))
    }


def test_the_order_is_the_known_one(benchmark_folder, systems, tmp_path):
    config = EvaluationConfig(**QUIET, with_published=True)
    results = evaluate_renders(benchmark_folder, systems, tmp_path / "out", config)
    figures = results["figures"]
    for name in ("psnr", "ssim"):
        means = [figures[system]["self"][name]["mean"] for system in ("bad", "fair", "good")]
        assert means == sorted(means)
        best = figures["good"]["self"][name]
        assert best["low"] <= best["mean"] <= best["high"] and best["num_identities"] == 2
    assert figures["good"]["self"]["lpips"] == {"needs": "alexnet-owt-7be5be79.pth"}
    assert "psnr" not in figures["good"]["cross"]
    text = (tmp_path / "out/results.md").read_text()
    assert "n/a (needs alexnet-owt-7be5be79.pth)" in text and "Not comparable" in text
    assert json.loads((tmp_path / "out/results.json").read_text()) == json.loads(
        json.dumps(results)
    )
    page = (tmp_path / "out/index.html").read_text()
    assert all(system in page for system in systems)
    shown = [part.split('"')[0] for part in page.split('<img src="')[1:]]
    assert shown and all((tmp_path / "out" / picture).is_file() for picture in shown)


def test_a_stopped_run_goes_on_and_ends_the_same(benchmark_folder, systems, tmp_path, monkeypatch):
    whole = evaluate_renders(
        benchmark_folder, systems, tmp_path / "whole", EvaluationConfig(**QUIET)
    )
    measure, calls = scoring.measure_pair, []

    def stop_after_five(*args):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(scoring, "measure_pair", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        evaluate_renders(benchmark_folder, systems, tmp_path / "out", EvaluationConfig(**QUIET))
    calls.clear()
    monkeypatch.setattr(scoring, "measure_pair", lambda *args: calls.append(args) or measure(*args))
    again = evaluate_renders(benchmark_folder, systems, tmp_path / "out", EvaluationConfig(**QUIET))
    assert again == whole and len(calls) == 3 * 16 - 5
    calls.clear()
    # One render that has changed is measured again, and no other.
    item = read_manifest(benchmark_folder).items[0]
    Image.new("RGB", (64, 64), "red").save(systems["good"] / f"{item.item_id}.png")
    scoring._picture.cache_clear()
    changed = evaluate_renders(
        benchmark_folder, systems, tmp_path / "out", EvaluationConfig(**QUIET)
    )
    assert len(calls) == 1 and changed["figures"] != whole["figures"]
    assert "blank" in [f["kind"] for f in changed["faults"]["good"]]


def test_a_system_gains_nothing_by_what_it_lacks(benchmark_folder, systems, tmp_path):
    items = read_manifest(benchmark_folder).of_task("self")
    (systems["bad"] / f"{items[0].item_id}.png").unlink()
    results = evaluate_renders(
        benchmark_folder, systems, tmp_path / "out", EvaluationConfig(**QUIET)
    )
    counts = {r["self"]["psnr"]["num_items"] for r in results["figures"].values()}
    assert counts == {len(items) - 1} == {results["num_common"]["self"]}
    missing = {"kind": "missing", "name": items[0].item_id, "detail": ""}
    # All people of this test are the driver in cross reenactment.
    others = [fault for fault in results["faults"]["bad"] if fault["kind"] != "repeated"]
    assert others == [missing]
    text = (tmp_path / "out/results.md").read_text()
    assert f"{2 * len(items) - 1} of {2 * len(items)} items" in text


def test_faces_that_are_not_found_are_counted(benchmark_folder, systems, tmp_path):
    tracker = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"
    config = EvaluationConfig(InstrumentPaths(tracker=tracker), **QUIET)
    for path in systems["bad"].glob("*.png"):
        Image.new("RGB", (64, 64), "white").save(path)
    results = evaluate_renders(benchmark_folder, {"bad": systems["bad"]}, tmp_path / "out", config)
    figure = results["figures"]["bad"]["self"]["akd_468"]
    assert "mean" not in figure and figure["num_missed"] == 8
    kinds = [fault["kind"] for fault in results["faults"]["bad"]]
    assert kinds.count("no face") == kinds.count("blank") == 16


def test_fid_is_of_sets_and_says_how_many(benchmark_folder, systems):
    manifest = read_manifest(benchmark_folder)
    scores, real = {}, {p: torch.randn(4, 8) for p in manifest.identities}
    for name, shift in (("near", 0.1), ("far", 2.0)):
        one = SystemScores(find_renders(name, systems["good"], manifest))
        for item in manifest.items:
            one.features[item.item_id] = torch.randn(8) + shift
        scores[name] = one
    figures = summarise(scores, manifest, real)
    near, far = (figures[name]["self"]["fid"] for name in ("near", "far"))
    assert near["mean"] < far["mean"] and near["num_items"] == near["num_real"] == 8
    assert near["low"] is None  # two people have no spread
    assert floor_of_fid(real)["num_items"] == 4 and floor_of_fid({})["fid"] is None
    del scores["near"].features[manifest.items[0].item_id]
    assert "needs" in summarise(scores, manifest, real)["near"]["self"]["fid"]


def test_intervals_hold_the_mean_of_people_and_not_of_pictures():
    values = {"a": [1.0] * 100, "b": [3.0], "c": []}
    estimate = mean_over_people(values)
    assert (estimate.mean, estimate.low, estimate.high) == (2.0, 1.0, 3.0)
    assert estimate == mean_over_people(values)
    assert mean_over_people({"a": []}) is None
    assert mean_over_people({"a": [1.0]}).high == math.inf
    people = {str(i): float(i) for i in range(9)}
    whole = set_over_people(lambda names: sum(people[n] for n in names) / len(names), [*people])
    # Of a mean, the jackknife gives the standard error.
    error = torch.arange(9.0).std().item() / 3
    assert whole.mean == 4 and whole.high - 4 == pytest.approx(1.96 * error, rel=1e-5)


def test_stand_ins_cannot_enter_the_papers_columns():
    with pytest.raises(ValueError, match="`akd_468` is no metric of the paper"):
        check_paper_columns({"self": ("lpips", "akd_468")})
    with pytest.raises(ValueError, match="`nothing` is no metric"):
        check_paper_columns({"self": ("nothing",)})
    absent = {name: {"needs": "a file"} for name in CATALOGUE}
    text = paper_table({"a | b": {"self": absent, "cross": absent}}, table=2)
    assert text.splitlines()[0].count("|") == 6 and "AKD-468" not in text


def test_markdown_becomes_html():
    page = to_html("| a | b |\n| --- | --- |\n| x<y | **1.2** [1, 2] |\n\n- note\n")
    assert (
        "<td>x&lt;y</td><td><b>1.2</b> <small>[1, 2]</small></td>" in page
        and "<li>note</li>" in page
    )


def test_bad_arguments_are_refused(benchmark_folder, systems, tmp_path):
    with pytest.raises(ValueError, match="at least one system"):
        evaluate_renders(benchmark_folder, {}, tmp_path / "out")
    with pytest.raises(ValueError, match="`renders` must name systems"):
        evaluate_renders(benchmark_folder, {"../a": systems["good"]}, tmp_path / "out")
    with pytest.raises(ValueError, match="SYSTEM=FOLDER"):
        parse_renders(["LAM"])
    with pytest.raises(ValueError, match="every system once"):
        parse_renders(["LAM=a", "LAM=b"])
    with pytest.raises(ValueError, match="`table` must be 1 or 2"):
        EvaluationConfig(table=3)
    other = tmp_path / "other"
    shutil.copytree(benchmark_folder, other)
    target = next((other / "targets").iterdir())
    Image.new("RGB", (64, 64)).save(target)
    with pytest.raises(ValueError, match="is not the picture that the manifest was made with"):
        evaluate_renders(other, systems, tmp_path / "out")
    target.unlink()
    with pytest.raises(FileNotFoundError, match="must hold targets/"):
        evaluate_renders(other, systems, tmp_path / "out")


def test_the_command_makes_a_benchmark_for_others(capture_folders, tmp_path):
    sizes = ["--num-identities", 2, "--num-timesteps", 2, "--num-views", 2, "--image-size", 64]
    words = ["evaluate", tmp_path / "made", "--captures", capture_folders[0].parent, *sizes]
    ended = CliRunner().invoke(app, [*map(str, words), "--dataset", "tiny people"])
    assert ended.exit_code == 0, ended.output
    assert "has 16 items" in ended.output and "--renders SYSTEM=FOLDER" in ended.output
    made = read_manifest(tmp_path / "made")
    assert made.dataset == "tiny people" and [p.name for p in tmp_path.iterdir()] == ["made"]
    renders = write_renders(tmp_path / "made", tmp_path / "renders", 1)
    words = [*words, "-o", tmp_path / "out", "--renders", f"blurred={renders}"]
    ended = CliRunner().invoke(app, [*map(str, words), "--num-proc", "1"])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "out/index.html").is_file() and read_manifest(tmp_path / "made") == made

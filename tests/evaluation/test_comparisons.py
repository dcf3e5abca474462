# SPDX-License-Identifier: Apache-2.0
"""Differences within people: known ones come out, to the better side of each metric."""

import math

import pytest

from pointillist_hf.evaluation.comparisons import compare_rows
from pointillist_hf.evaluation.manifest import Item, Manifest, Source
from pointillist_hf.evaluation.metric_catalogue import CATALOGUE
from pointillist_hf.evaluation.renders import RenderSet
from pointillist_hf.evaluation.scoring import SystemScores
from pointillist_hf.evaluation.statistics import paired_difference, sign_test
from pointillist_hf.evaluation.summary import group_figures, summarise
from pointillist_hf.evaluation.tables import comparison_table, format_figure

PEOPLE = [f"p{i}" for i in range(6)]


@pytest.fixture
def manifest():
    items = [
        Item(f"{p}-{k}", "self", p, p, "0", k, f"{p}-{k}", "", (), ())
        for p in PEOPLE
        for k in range(2)
    ]
    sources = tuple(Source(p, "0", 0, "") for p in PEOPLE)
    return Manifest("d", 0, 64, "centre", (1.0, 1.0, 1.0), None, None, sources, tuple(items))


def scores(manifest, name, **metrics):
    ids = [item.item_id for item in manifest.items]
    files = dict.fromkeys(ids)
    made = SystemScores(RenderSet(name, files, files, []))
    made.values = {m: {i: value(i) for i in ids} for m, value in metrics.items()}
    return made


@pytest.fixture
def systems(manifest):
    """People differ by 10 dB, systems by a tenth of one."""

    def base(item_id):
        return 20.0 + 10 * int(item_id[1]) + int(item_id[-1])

    return {
        "a": scores(manifest, "a", psnr=lambda i: base(i) + 0.1, akd_468=lambda i: 3.0),
        "b": scores(manifest, "b", psnr=base, akd_468=lambda i: 2.0 if i < "p5" else 4.0),
        "c": scores(manifest, "c", psnr=lambda i: base(i) - 1, akd_468=lambda i: None),
    }


def test_small_differences_within_large_ones(manifest, systems):
    rows = {"a": ["a"], "b": ["b"], "c": ["c"]}
    figures = summarise(systems, manifest, {})
    a, b = (figures[name]["self"]["psnr"] for name in "ab")
    assert a["low"] < b["mean"] < a["mean"] < b["high"]
    found = compare_rows(systems, manifest, rows)["self"]
    gap = found["psnr"][0]
    assert (gap["first"], gap["second"]) == ("a", "b")
    assert gap["mean"] == pytest.approx(0.1) and gap["low"] == pytest.approx(0.1)
    assert (gap["num_better"], gap["num_worse"], gap["num_identities"]) == (6, 0, 6)
    assert gap["chance"] == 2 / 2**6
    # Lower is better, and nobody has a figure of c.
    [gap] = found["akd_468"]
    assert (gap["num_better"], gap["num_worse"]) == (1, 5) and gap["mean"] == pytest.approx(2 / 3)
    text = comparison_table(figures, found, "self")
    assert "| AKD-468, px \N{DOWNWARDS ARROW} | b | a | -0.667 [" in text and "| 5 of 6 |" in text
    assert "| a | b | +0.1 [+0.1, +0.1] | 6 of 6 | 0.031 |" in text
    assert comparison_table(figures, {}, "self") == ""


def test_several_trainings_are_one_row(manifest, systems):
    rows = {"both": ["a", "c"], "b": ["b"]}
    figures = summarise(systems, manifest, {})
    grouped = group_figures(figures, rows)
    assert [*grouped] == ["both", "b"] and grouped["b"] == figures["b"]
    figure = grouped["both"]["self"]["psnr"]
    means = [figures[name]["self"]["psnr"]["mean"] for name in "ac"]
    assert figure["mean"] == pytest.approx(sum(means) / 2) and figure["low"] is None
    assert figure["deviation"] == pytest.approx(1.1 / math.sqrt(2))
    text = format_figure(figure, CATALOGUE["psnr"])
    assert text == f"{figure['mean']:.2f} [\N{PLUS-MINUS SIGN} 0.78, 2 trainings]"
    # A training without a figure leaves its row without one.
    assert "mean" not in grouped["both"]["self"]["akd_468"]
    [gap] = compare_rows(systems, manifest, rows)["self"]["psnr"]
    assert gap["mean"] == pytest.approx(-0.45) and gap["num_worse"] == 6


def test_signs_are_counted_and_ties_are_not():
    assert sign_test(9, 0) == pytest.approx(2 / 2**9) and sign_test(0, 0) == 1 == sign_test(4, 4)
    assert sign_test(1, 7) == sign_test(7, 1) == pytest.approx(2 * 9 / 2**8)
    first = {"a": [1.0, 3.0], "b": [1.0], "c": [], "d": [5.0]}
    gap = paired_difference(first, {"a": [2.0], "b": [0.5], "c": [1.0]})
    assert (gap.mean, gap.num_higher, gap.num_lower, gap.num_identities) == (0.25, 1, 0, 2)
    assert paired_difference({"a": [1.0]}, {"b": [1.0]}) is None

# SPDX-License-Identifier: Apache-2.0
"""Results in words and tables, and what a reader has to know to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .manifest import TASKS
from .metric_catalogue import CATALOGUE, Metric, of_kinds
from .renders import FAULTS, Fault
from .report_page import Column, Section
from .scoring import SystemScores
from .tables import (
    TASK_TITLES,
    Figures,
    comparison_table,
    fault_table,
    is_measured,
    own_table,
    paper_table,
)

# What a picture's caption says: the first of each that was measured, and two at most.
CAPTIONS = (("lpips", "psnr"), ("akd", "akd_468"), ("likeness",))
COMPARISON_NOTE = (
    "Differences are taken person by person, with the interval over people; the last column is how "
    "often a coin would favour one of two equal systems for as many people (sign test)."
)


def build_sections(
    results: Mapping, faults: Mapping[str, Sequence[Fault]], *, table: int, with_published: bool
) -> list[Section]:
    """What stands in results.md and above the pictures of the page.

    Args:
        results: Of `benchmark_run.evaluate_renders`.
        faults: By system.
        table: Of the paper, 1 or 2.
        with_published: Whether to print the paper's rows.
    """
    figures = results["figures"]
    main = paper_table(figures, table=table, with_published=with_published, speed=results["speed"])
    sections = [Section(f"Table {table}", main + _paper_notes(results, figures))]
    tasks = [task for task in TASKS if results["num_items"][task]]
    for task in tasks:
        text = own_table(figures, task) + _own_notes(task, figures)
        sections.append(Section(f"{TASK_TITLES[task]}, other metrics", text))
    for task in tasks:
        text = comparison_table(figures, results["comparisons"][task], task)
        if text:
            title = f"{TASK_TITLES[task]}, the best against the second"
            sections.append(Section(title, f"{text}\n{COMPARISON_NOTE}\n"))
    total, shared = (sum(results[name].values()) for name in ("num_items", "num_common"))
    text = f"Figures are of the {shared} of {total} items that every system has.\n\n"
    sections.append(Section("Faults of the renders", text + fault_table(faults, FAULTS)))
    return sections


def build_column(scores: SystemScores) -> Column:
    """A system's pictures for the page, each with a figure or two of its own."""
    items = scores.renders.files
    found: dict[str, list[str]] = {item_id: [] for item_id in items}
    for names in CAPTIONS:
        metric = next((CATALOGUE[name] for name in names if scores.values.get(name)), None)
        for item_id, value in scores.values[metric.name].items() if metric else ():
            words = "no face" if value is None else f"{value:.{metric.decimals}f} {metric.unit}"
            found[item_id].append(f"{metric.title} {words}".strip())
    return Column(items, {item_id: ", ".join(words[:2]) for item_id, words in found.items()})


def _paper_notes(results: Mapping, figures: Figures) -> str:
    """What has to be known of the figures, one line each."""
    sizes = {
        task: {one[task]["fid"].get("num_items") for one in figures.values()} for task in TASKS
    }
    named = [f"FID@{n} ({task})" for task in TASKS for n in sizes[task] if n]
    floor = results["fid_floor"]
    metrics = [metric for metric in CATALOGUE.values() if metric.kind == "paper"]
    notes = ["Bold is the best and italic the second; brackets hold 95 % of draws of people."]
    notes += _describe(metrics, figures)
    if named:
        notes.append(f"The number of pictures belongs to FID: {', '.join(named)}.")
    if floor["fid"] is not None:
        notes.append(
            f"Real pictures against other real ones of the same people: "
            f"{floor['fid']:.1f} (FID@{floor['num_items']})."
        )
    if any(results["speed"].values()):
        notes.append("Speed and size are what each system says of itself, on its own machine.")
    return "\n" + "".join(f"- {note}\n" for note in notes)


def _own_notes(task: str, figures: Figures) -> str:
    """What the metrics of names of their own are."""
    notes = _describe(of_kinds(task, "standin", "extra"), figures)
    lines = "".join(f"- {note}\n" for note in notes)
    return "\nNone of these is a metric of the paper.\n\n" + lines


def _describe(metrics: Sequence[Metric], figures: Figures) -> list[str]:
    """What measured metrics are, and what the others would need."""
    absent = [metric for metric in metrics if not is_measured(figures, metric)]
    notes = [f"{m.title}: {m.note}." for m in metrics if m.note and m not in absent]
    if absent:
        needs = ", ".join(f"{metric.title} ({metric.needs})" for metric in absent)
        notes.append(f"Not measured, for want of a file: {needs}.")
    return notes

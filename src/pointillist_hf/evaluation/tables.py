# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown: the paper's tables, what has names of its own, speed, faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .metric_catalogue import (
    CATALOGUE,
    TABLE_1,
    TABLE_2,
    Metric,
    check_paper_columns,
    of_kinds,
)
from .published import HEADING, PUBLISHED

TASK_TITLES = {"self": "Self reenactment", "cross": "Cross reenactment"}
SPEED = {
    "seconds_per_avatar": "seconds per avatar",
    "frames_per_second": "frames per second",
    "bytes_per_avatar": "bytes per avatar",
}
Figures = Mapping[str, Mapping[str, Mapping[str, Mapping]]]
Columns = Mapping[str, Sequence[str]]


def paper_table(figures: Figures, *, table: int = 1, with_published: bool = False) -> str:
    """Table 1 or 2 in the paper's layout; best in bold, second in italics.

    Args:
        figures: Of `summary.summarise`.
        table: Which one.
        with_published: Whether to print the paper's rows beneath, apart and under a warning.
    """
    columns = TABLE_1 if table == 1 else TABLE_2
    check_paper_columns(columns)
    text = metric_table(figures, columns)
    if with_published:
        rows = PUBLISHED[table]
        cells = [
            [system, *(f"{rows[system][t][n]:.2f}" for t, names in columns.items() for n in names)]
            for system in rows
        ]
        text += f"\n{HEADING}\n\n" + _lay_out(_headings(columns), cells)
    return text


def own_table(figures: Figures, task: str) -> str:
    """Stand-ins and further metrics of a task, under names of their own."""
    names = [metric.name for metric in of_kinds(task, "standin", "extra")]
    return metric_table(figures, {task: names})


def metric_table(figures: Figures, columns: Columns) -> str:
    """Columns of several tasks side by side; systems are rows."""
    ranks = {
        (t, n): _ranks(figures, t, CATALOGUE[n]) for t, names in columns.items() for n in names
    }
    cells = [
        [
            system,
            *(
                _mark(format_figure(tasks[t][n], CATALOGUE[n]), ranks[t, n].get(system))
                for t, names in columns.items()
                for n in names
            ),
        ]
        for system, tasks in figures.items()
    ]
    return _lay_out(_headings(columns), cells)


def format_figure(figure: Mapping, metric: Metric) -> str:
    """A mean with its interval and what was missed; or what is needed for it."""
    if "mean" not in figure:
        return f"n/a (needs {figure['needs']})"
    text = f"{figure['mean']:.{metric.decimals}f}"
    if figure["low"] is not None:
        text += f" [{figure['low']:.{metric.decimals}f}, {figure['high']:.{metric.decimals}f}]"
    return text + (f" ({figure['num_missed']} missed)" if figure["num_missed"] else "")


def speed_table(systems: Mapping[str, Mapping[str, object]]) -> str:
    """What systems say of their speed and size."""
    cells = [
        [system, *(_format_speed(about.get(name)) for name in SPEED)]
        for system, about in systems.items()
    ]
    return _lay_out(["", *SPEED.values()], cells)


def fault_table(systems: Mapping[str, Mapping[str, int]], kinds: Mapping[str, str]) -> str:
    """How many faults of each kind the renders have."""
    found = [kind for kind in kinds if any(counts.get(kind) for counts in systems.values())]
    if not found:
        return "No faults.\n"
    cells = [
        [system, *(str(counts.get(kind, 0)) for kind in found)]
        for system, counts in systems.items()
    ]
    notes = "".join(f"- {kind}: {kinds[kind]}\n" for kind in found)
    return _lay_out(["", *found], cells) + "\n" + notes


def heading(task: str, metric: Metric, *, with_task: bool) -> str:
    """A column's heading with the arrow that points to the better side."""
    arrow = "\N{UPWARDS ARROW}" if metric.higher_is_better else "\N{DOWNWARDS ARROW}"
    unit = f", {metric.unit}" if metric.unit else ""
    return (f"{task} " if with_task else "") + f"{metric.title}{unit} {arrow}"


def _headings(columns: Columns) -> list[str]:
    many = len(columns) > 1
    return [
        "",
        *(heading(t, CATALOGUE[n], with_task=many) for t, names in columns.items() for n in names),
    ]


def _ranks(figures: Figures, task: str, metric: Metric) -> dict[str, int]:
    """Place of the best two systems; equal ones share it."""
    means = {
        system: round(tasks[task][metric.name]["mean"], metric.decimals)
        for system, tasks in figures.items()
        if "mean" in tasks[task][metric.name]
    }
    if len(means) < 2:
        return {}
    order = sorted({*means.values()}, reverse=metric.higher_is_better)[:2]
    return {system: order.index(mean) for system, mean in means.items() if mean in order}


def _mark(text: str, rank: int | None) -> str:
    mark = {0: "**", 1: "_"}.get(rank, "")
    number, gap, rest = text.partition(" ")
    return f"{mark}{number}{mark}{gap}{rest}"


def _format_speed(value: object) -> str:
    is_number = isinstance(value, int | float)
    return f"{value:,.3g}" if is_number and value < 1000 else f"{value:,.0f}" if is_number else "-"


def _lay_out(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

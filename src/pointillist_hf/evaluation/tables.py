# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown: the paper's tables, what has names of its own, speed, faults."""

from __future__ import annotations

from collections import Counter
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
from .renders import Fault

TASK_TITLES = {"self": "Self reenactment", "cross": "Cross reenactment"}
# What systems say of themselves: the unit, how many of it make one of the column's, its heading.
SPEED = {
    "seconds_per_avatar": (1, "speed s per avatar \N{DOWNWARDS ARROW}"),
    "frames_per_second": (1, "speed frames per s \N{UPWARDS ARROW}"),
    "bytes_per_avatar": (10**6, "speed MB per avatar \N{DOWNWARDS ARROW}"),
}
MAX_NAMED = 8  # faults of a kind
Figures = Mapping[str, Mapping[str, Mapping[str, Mapping]]]
Columns = Mapping[str, Sequence[str]]


def paper_table(
    figures: Figures,
    *,
    table: int = 1,
    with_published: bool = False,
    speed: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """Table 1 or 2 in the paper's layout, and speed beside it; best in bold, second in italics.

    Args:
        figures: Of `summary.summarise` or `summary.group_figures`.
        table: Which one.
        with_published: Whether to print the paper's rows beneath, apart and under a warning.
        speed: What is known of each row's speed and size, by the names of `SPEED`.
    """
    columns = TABLE_1 if table == 1 else TABLE_2
    check_paper_columns(columns)
    text = metric_table(figures, columns, speed=speed or {})
    if with_published:
        rows = PUBLISHED[table]
        cells = [
            [system, *(f"{rows[system][t][n]:.2f}" for t, names in columns.items() for n in names)]
            for system in rows
        ]
        text += f"\n{HEADING}\n\n" + _lay_out(_headings(columns, with_task=True), cells)
    return text


def own_table(figures: Figures, task: str) -> str:
    """Stand-ins and further metrics of a task that were measured, under names of their own."""
    metrics = of_kinds(task, "standin", "extra")
    return metric_table(figures, {task: [m.name for m in metrics if is_measured(figures, m)]})


def is_measured(figures: Figures, metric: Metric) -> bool:
    """Whether any row has a figure of a metric."""
    return any("mean" in tasks[t].get(metric.name, {}) for tasks in figures.values() for t in tasks)


def metric_table(
    figures: Figures,
    columns: Columns,
    *,
    speed: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """Columns of several tasks side by side; systems are rows.

    Args:
        figures: By row, task and metric.
        columns: Metrics of each task.
        speed: As in `paper_table`; its columns come last, unmarked, because machines differ.
    """
    known = [name for name in SPEED if any(name in about for about in (speed or {}).values())]
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
            *(_format_speed((speed or {}).get(system, {}).get(n), SPEED[n][0]) for n in known),
        ]
        for system, tasks in figures.items()
    ]
    titles = _headings(columns, with_task=speed is not None)
    return _lay_out([*titles, *(SPEED[name][1] for name in known)], cells)


def format_figure(figure: Mapping, metric: Metric) -> str:
    """A mean with its interval and what was missed; or what is needed for it."""
    if "mean" not in figure:
        return f"n/a (needs {figure['needs']})"
    text = f"{figure['mean']:.{metric.decimals}f}"
    if "deviation" in figure:
        spread = f"{figure['deviation']:.{metric.decimals}f}"
        text += f" [\N{PLUS-MINUS SIGN} {spread}, {figure['num_systems']} trainings]"
    if figure["low"] is not None:
        text += f" [{figure['low']:.{metric.decimals}f}, {figure['high']:.{metric.decimals}f}]"
    return text + (f" ({figure['num_missed']} missed)" if figure["num_missed"] else "")


def comparison_table(
    figures: Figures, comparisons: Mapping[str, Sequence[Mapping]], task: str
) -> str:
    """The best row of each metric against the second one, person for person; empty without."""
    cells = []
    for name, pairs in comparisons.items():
        metric = CATALOGUE[name]
        order = _order(figures, task, metric)[:2]
        pair = next((p for p in pairs if {p["first"], p["second"]} == {*order}), None)
        if pair is not None:
            cells.append([heading(task, metric, with_task=False), *order, *_describe(pair, order)])
    titles = ["", "best", "second", "difference", "better for", "by chance"]
    return _lay_out(titles, cells) if cells else ""


def _describe(pair: Mapping, order: Sequence[str]) -> list[str]:
    """Difference, people, and the sign test's chance, of the first of an order."""
    metric_sign = 1 if pair["first"] == order[0] else -1
    edges = sorted(metric_sign * pair[n] for n in ("low", "high") if pair[n] is not None)
    gap = f"{metric_sign * pair['mean']:+.3g}"
    interval = f" [{edges[0]:+.3g}, {edges[1]:+.3g}]" if len(edges) == 2 else ""
    better = pair["num_better"] if metric_sign > 0 else pair["num_worse"]
    return [gap + interval, f"{better} of {pair['num_identities']}", f"{pair['chance']:.2g}"]


def fault_table(systems: Mapping[str, Sequence[Fault]], kinds: Mapping[str, str]) -> str:
    """How many faults of each kind the renders have, what becomes of them, and where they are."""
    counts = {system: Counter(f.kind for f in faults) for system, faults in systems.items()}
    found = [kind for kind in kinds if any(kind in count for count in counts.values())]
    if not found:
        return "No faults.\n"
    cells = [[system, *(str(count[kind]) for kind in found)] for system, count in counts.items()]
    notes = "".join(f"- {kind}: {kinds[kind]}\n" for kind in found)
    places = "".join(
        f"- {system}, {kind}: {_name_places([f for f in faults if f.kind == kind])}\n"
        for system, faults in systems.items()
        for kind in found
        if counts[system][kind]
    )
    return _lay_out(["", *found], cells) + "\n" + notes + "\nWhich ones:\n\n" + places


def _name_places(faults: Sequence[Fault]) -> str:
    shown = [f.name + (f" ({f.detail})" if f.detail else "") for f in faults[:MAX_NAMED]]
    more = len(faults) - len(shown)
    return ", ".join(shown) + (f" and {more} more, all of them in results.json" if more else "")


def heading(task: str, metric: Metric, *, with_task: bool) -> str:
    """A column's heading with the arrow that points to the better side."""
    arrow = "\N{UPWARDS ARROW}" if metric.higher_is_better else "\N{DOWNWARDS ARROW}"
    unit = f", {metric.unit}" if metric.unit else ""
    return (f"{task} " if with_task else "") + f"{metric.title}{unit} {arrow}"


def _headings(columns: Columns, *, with_task: bool) -> list[str]:
    return [
        "",
        *(
            heading(t, CATALOGUE[n], with_task=with_task)
            for t, names in columns.items()
            for n in names
        ),
    ]


def _ranks(figures: Figures, task: str, metric: Metric) -> dict[str, int]:
    """Place of the best two systems; equal ones share it."""
    means = _means(figures, task, metric)
    if len(means) < 2:
        return {}
    order = sorted({*means.values()}, reverse=metric.higher_is_better)[:2]
    return {system: order.index(mean) for system, mean in means.items() if mean in order}


def _order(figures: Figures, task: str, metric: Metric) -> list[str]:
    """Systems from the best one on, as far as they have a figure."""
    means = _means(figures, task, metric)
    return sorted(means, key=means.__getitem__, reverse=metric.higher_is_better)


def _means(figures: Figures, task: str, metric: Metric) -> dict[str, float]:
    """Figures of a column as they are printed."""
    return {
        system: round(tasks[task][metric.name]["mean"], metric.decimals)
        for system, tasks in figures.items()
        if "mean" in tasks[task][metric.name]
    }


def _mark(text: str, rank: int | None) -> str:
    mark = {0: "**", 1: "_"}.get(rank, "")
    number, gap, rest = text.partition(" ")
    return f"{mark}{number}{mark}{gap}{rest}"


def _format_speed(value: object, divisor: int) -> str:
    if not isinstance(value, int | float):
        return "-"
    number = value / divisor
    return f"{number:,.3g}" if number < 1000 else f"{number:,.0f}"


def _lay_out(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

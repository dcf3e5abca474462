# SPDX-License-Identifier: Apache-2.0
"""Systems against each other on the same people, picture for picture.

People differ more than systems do: intervals of two means may overlap widely where one system is
the better one for every single person. What counts is the difference within a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations

from .manifest import TASKS, Item, Manifest
from .metric_catalogue import CATALOGUE, Metric
from .scoring import SystemScores
from .statistics import paired_difference
from .summary import common_items, person_values

Comparison = dict[str, str | float | int | None]


def compare_rows(
    scores: Mapping[str, SystemScores],
    manifest: Manifest,
    rows: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, list[Comparison]]]:
    """Every pair of rows in every metric of single pictures, by task and metric.

    Args:
        scores: Of all systems.
        manifest: Of the benchmark.
        rows: Systems of each row; several are one system that was trained several times.
        seed: Of the intervals.

    Returns:
        For each pair `first` and `second`, in the order of the rows; `mean`, what the first has
        more than the second, with `low` and `high`; `num_better`, `num_worse` and `num_identities`,
        people for whom the first is the better or the worse one; `chance`, of the sign test.
    """
    items = common_items(scores, manifest)
    return {
        task: {
            metric.name: found
            for metric in CATALOGUE.values()
            if task in metric.tasks and not metric.of_sets
            if (found := _compare(scores, [i for i in items if i.task == task], rows, metric, seed))
        }
        for task in TASKS
    }


def _compare(
    scores: Mapping[str, SystemScores],
    items: Sequence[Item],
    rows: Mapping[str, Sequence[str]],
    metric: Metric,
    seed: int,
) -> list[Comparison]:
    people = {
        row: _join([person_values(scores[s], items, metric.name) for s in systems])
        for row, systems in rows.items()
    }
    found: list[Comparison] = []
    for first, second in combinations(rows, 2):
        gap = paired_difference(people[first], people[second], seed=seed)
        if gap is None:
            continue
        plain = {k: v if math.isfinite(v) else None for k, v in asdict(gap).items()}
        sides = [plain.pop("num_higher"), plain.pop("num_lower")]
        better, worse = sides if metric.higher_is_better else sides[::-1]
        found.append(
            {"first": first, "second": second, **plain, "num_better": better, "num_worse": worse}
        )
    return found


def _join(parts: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    return {person: [v for part in parts for v in part[person]] for person in parts[0]}

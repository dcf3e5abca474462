# SPDX-License-Identifier: Apache-2.0
"""What was measured, in a few figures: for each system, task and metric, over the same items.

An item that one system lacks is left out for all of them, so that no system gains by failing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from .manifest import TASKS, Item, Manifest
from .metric_catalogue import CATALOGUE, Metric
from .metrics.frechet import frechet_distance, kernel_distance, real_floor
from .scoring import SystemScores
from .statistics import Estimate, mean_over_people, set_over_people

SET_DISTANCES = {"fid": frechet_distance, "kid": kernel_distance}


def common_items(scores: Mapping[str, SystemScores], manifest: Manifest) -> list[Item]:
    """Items that every system has a usable render of."""
    return [
        item
        for item in manifest.items
        if all(item.item_id in one.renders.files for one in scores.values())
    ]


def summarise(
    scores: Mapping[str, SystemScores],
    manifest: Manifest,
    real: Mapping[str, Tensor],
    *,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, dict]]]:
    """Figures by system, task and metric.

    Args:
        scores: Of all systems.
        manifest: Of the benchmark.
        real: Features of the real pictures of each person, for FID. [N, D] each
        seed: Of the intervals.

    Returns:
        `mean`, `low`, `high`, `num_identities`, `num_items`, `num_missed`; or `needs` alone, the
        file without which there is no figure.
    """
    items = common_items(scores, manifest)
    return {
        system: {
            task: {
                metric.name: _figure(metric, one, [i for i in items if i.task == task], real, seed)
                for metric in CATALOGUE.values()
                if task in metric.tasks
            }
            for task in TASKS
        }
        for system, one in scores.items()
    }


def group_figures(
    figures: Mapping[str, Mapping[str, Mapping[str, Mapping]]], rows: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, Mapping]]]:
    """Figures by row: those of its system, or the mean and deviation of several trained alike.

    Args:
        figures: Of `summarise`.
        rows: Systems of each row.

    Returns:
        As `summarise`; rows of several systems have a `deviation` and `num_systems` in place of the
        interval over people, which would say nothing of what another training gives.
    """
    return {
        row: figures[systems[0]]
        if len(systems) == 1
        else {
            task: {name: _join([figures[s][task][name] for s in systems]) for name in names}
            for task, names in figures[systems[0]].items()
        }
        for row, systems in rows.items()
    }


def person_values(
    scores: SystemScores, items: Sequence[Item], metric: str
) -> dict[str, list[float]]:
    """What was measured of each person's pictures; those without a value are left out."""
    values = scores.values.get(metric, {})
    people: dict[str, list[float]] = {item.identity: [] for item in items}
    for item in items:
        value = values.get(item.item_id)
        people[item.identity] += [] if value is None else [value]
    return people


def floor_of_fid(real: Mapping[str, Tensor]) -> dict[str, float | int | None]:
    """FID of real pictures to other real pictures of the same people, and of how many."""
    if not real:
        return {"fid": None, "num_items": 0}
    features = torch.cat([real[identity] for identity in sorted(real)])
    return {"fid": real_floor(features), "num_items": len(features) // 2}


def _figure(
    metric: Metric, scores: SystemScores, items: list[Item], real: Mapping[str, Tensor], seed: int
) -> dict:
    if metric.of_sets:
        return _set_figure(metric, scores, items, real)
    if metric.name not in scores.values or not items:
        return {"needs": metric.needs if items else "usable renders"}
    people = person_values(scores, items, metric.name)
    missed = len(items) - sum(map(len, people.values()))
    counts = {
        "num_identities": sum(bool(values) for values in people.values()),
        "num_items": len(items),
        "num_missed": missed,
    }
    estimate = mean_over_people(people, seed=seed)
    return (
        {"needs": "a face that is found", **counts}
        if estimate is None
        else (_plain(estimate) | counts)
    )


def _join(figures: Sequence[Mapping]) -> Mapping:
    if any("mean" not in figure for figure in figures):
        return next(figure for figure in figures if "mean" not in figure)
    means = [figure["mean"] for figure in figures]
    return {
        **figures[0],
        "mean": statistics.fmean(means),
        "low": None,
        "high": None,
        "deviation": statistics.stdev(means),
        "num_systems": len(means),
        "num_missed": sum(figure["num_missed"] for figure in figures),
    }


def _set_figure(
    metric: Metric, scores: SystemScores, items: list[Item], real: Mapping[str, Tensor]
) -> dict:
    people = sorted({item.identity for item in items})
    known = [item for item in items if item.item_id in scores.features]
    if len(known) < 2 or len(known) < len(items) or not {*people} <= {*real}:
        return {"needs": metric.needs if items else "usable renders"}
    own = {
        person: torch.stack([scores.features[i.item_id] for i in known if i.identity == person])
        for person in people
    }

    def distance(chosen: list[str]) -> float:
        made, true = (torch.cat([one[person] for person in chosen]) for one in (own, real))
        return SET_DISTANCES[metric.name](made, true)

    num_real = sum(len(real[person]) for person in people)
    counts = {"num_identities": len(people), "num_items": len(known), "num_real": num_real}
    return _plain(set_over_people(distance, people)) | counts | {"num_missed": 0}


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """JSON knows no infinity."""
    return {k: v if math.isfinite(v) else None for k, v in asdict(estimate).items()}

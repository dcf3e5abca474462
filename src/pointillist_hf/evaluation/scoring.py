# SPDX-License-Identifier: Apache-2.0
"""Measures the renders of systems, item by item; what is done is kept, so that a run goes on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.work_pool import run_jobs
from ..exporters.json_file import read_json_object, write_json_object
from ..pretrained.weights_files import file_sha256
from .instruments import InstrumentPaths, Instruments, load_readings, open_instruments
from .manifest import Item, Manifest
from .metrics.clip import clip_similarity
from .metrics.head_pose import pose_distance
from .metrics.keypoints import aligned_keypoint_distance, keypoint_distance, keypoint_rotation
from .metrics.lpips import lpips
from .metrics.pixels import laplacian_l1, psnr, ssim
from .renders import Fault, RenderSet, load_render

Readings = Mapping[str, Tensor]


@dataclass(frozen=True)
class ScoreJob:
    """One render to measure."""

    system: str
    item: Item
    render: Path
    source_sha256: str


@dataclass
class SystemScores:
    """What was measured of one system."""

    renders: RenderSet
    # By metric and item; None where there is no value, such as that of a face not found.
    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)  # of FID, by item


@dataclass(frozen=True)
class Workplace:
    """Where a worker finds things."""

    benchmark: Path
    output: Path
    paths: InstrumentPaths
    image_size: int
    background: tuple[float, ...]


def score_systems(
    renders: list[RenderSet],
    benchmark: Path,
    manifest: Manifest,
    output: Path,
    paths: InstrumentPaths,
    *,
    landmarks: Mapping[str, Tensor] | None = None,
    num_proc: int = 1,
    show_progress: bool = True,
) -> dict[str, SystemScores]:
    """The scores of all systems. Adds the faces that were not found to the faults.

    Args:
        renders: Of the systems.
        benchmark: Its folder.
        manifest: Its manifest.
        output: Folder for what is kept.
        paths: Of the weights.
        landmarks: MediaPipe's, by the SHA-256 of the picture's file.
        num_proc: Processes.
        show_progress: Whether to draw a bar.
    """
    place = Workplace(benchmark, output, paths, manifest.image_size, manifest.background)
    sources = {source.identity: source.sha256 for source in manifest.sources}
    jobs = [
        ScoreJob(one.system, item, one.files[item.item_id], sources[item.identity])
        for one in renders
        for item in manifest.items
        if item.item_id in one.files
    ]
    scores = {one.system: SystemScores(one) for one in renders}
    work = partial(_score_kept, place=place)
    found = run_jobs(work, jobs, num_proc=num_proc, unit="picture", show_progress=show_progress)
    for job, record in sorted(found, key=lambda pair: pair[0].item.item_id):
        _enter(scores[job.system], job.item, record, place, landmarks or {})
    return scores


def real_features(
    benchmark: Path,
    manifest: Manifest,
    output: Path,
    paths: InstrumentPaths,
    *,
    num_proc: int = 1,
    show_progress: bool = True,
) -> dict[str, Tensor]:
    """Features of all real pictures of each person, which FID compares with. [N, D] each

    There are none without Inception. The arguments are those of `score_systems`.
    """
    if _instruments(paths).inception is None:
        return {}
    place = Workplace(benchmark, output, paths, manifest.image_size, manifest.background)
    items = manifest.of_task("self")
    found = dict(
        run_jobs(
            partial(_read_target, place=place),
            items,
            num_proc=num_proc,
            unit="target",
            show_progress=show_progress,
        )
    )
    rows: dict[str, list[Tensor]] = {}
    for item in items:
        rows.setdefault(item.identity, []).append(torch.from_numpy(found[item]))
    return {identity: torch.stack(features) for identity, features in rows.items()}


def measure_pair(
    image: Tensor, target: Tensor, item: Item, instruments: Instruments
) -> dict[str, float]:
    """Metrics of pixels, where the target is the truth. [S, S, 3]"""
    if item.task != "self":
        return {}
    a, b = image[None], target[None]
    found = {"psnr": psnr(a, b), "ssim": ssim(a, b), "laplacian_l1": laplacian_l1(a, b)}
    if instruments.lpips is not None:
        found["lpips"] = lpips(a, b, instruments.lpips)
    return {name: float(value) for name, value in found.items()}


def compare_readings(
    own: Readings, target: Readings, source: Readings, item: Item, size: int
) -> dict[str, float | None]:
    """Metrics of what the instruments saw; None where a face was not found."""
    found: dict[str, Tensor] = {}
    if "landmarks" in own:
        marks, truth = own["landmarks"][None], target["landmarks"][None]
        found["akd_468"] = keypoint_distance(marks, truth, (size, size))
        found["akd_468_aligned"] = aligned_keypoint_distance(marks, truth, (size, size))
        found["pose_468_deg"] = keypoint_rotation(marks, truth)
    if "rotation" in own:
        found["apd"] = pose_distance(own["rotation"][None], target["rotation"][None])
    if "clip" in own and item.task == "cross":
        found["clip"] = clip_similarity(own["clip"][None], source["clip"][None])
    if "recognition" in own:
        found["likeness"] = torch.dist(own["recognition"], source["recognition"])
    return {name: _number(value) for name, value in found.items()}


@lru_cache(1)
def _instruments(paths: InstrumentPaths) -> Instruments:
    return open_instruments(paths)


@lru_cache(8)
def _picture(path: Path, place: Workplace) -> Tensor:
    return load_render(path, place.image_size, place.background)


def _read_target(item: Item, place: Workplace) -> np.ndarray:
    """Its features; as an array, because tensors do not pass between processes as plainly."""
    target = _picture(place.benchmark / "targets" / f"{item.target}.png", place)
    readings = place.output / "readings"
    seen = _instruments(place.paths).read_kept(target, item.target_sha256, readings)
    return seen["inception"].numpy()


def _score_kept(job: ScoreJob, place: Workplace) -> dict:
    """The record of an item, from its file if nothing has changed since."""
    instruments = _instruments(place.paths)
    digest = file_sha256(job.render)
    parts = (instruments.key, digest, job.item.target_sha256, job.source_sha256, job.item.task)
    key = hashlib.sha256("|".join(parts).encode()).hexdigest()
    kept = place.output / "scores" / job.system / f"{job.item.item_id}.json"
    readings = place.output / "readings"
    if kept.is_file():
        record = read_json_object(kept)
        own = readings / f"{instruments.key}-{record.get('render')}.npz"
        if record.get("key") == key and own.is_file():
            return record
    image = _picture(job.render, place)
    target = _picture(place.benchmark / "targets" / f"{job.item.target}.png", place)
    source = _picture(place.benchmark / "sources" / f"{job.item.identity}.png", place)
    # The same file is another picture in another size or on another background.
    made_of = f"{digest}|{place.image_size}|{place.background}"
    own_digest = hashlib.sha256(made_of.encode()).hexdigest()[:24]
    seen = [
        instruments.read_kept(image, own_digest, readings),
        instruments.read_kept(target, job.item.target_sha256, readings),
        instruments.read_kept(source, job.source_sha256, readings),
    ]
    values = measure_pair(image, target, job.item, instruments)
    values |= compare_readings(*seen, job.item, place.image_size)
    record = {"key": key, "instruments": instruments.key, "render": own_digest, "values": values}
    write_json_object(record, kept)
    return record


def _enter(
    scores: SystemScores,
    item: Item,
    record: dict,
    place: Workplace,
    landmarks: Mapping[str, Tensor],
) -> None:
    values = dict(record["values"])
    if landmarks:
        digests = (scores.renders.sha256[item.item_id], item.target_sha256)
        own, truth = (landmarks[sha256][None] for sha256 in digests)
        size = (place.image_size, place.image_size)
        values["akd"] = _number(keypoint_distance(own, truth, size))
        values["akd_aligned"] = _number(aligned_keypoint_distance(own, truth, size))
    for name, value in values.items():
        scores.values.setdefault(name, {})[item.item_id] = value
    if "akd_468" in values and values["akd_468"] is None:
        scores.renders.faults.append(Fault("no face", item.item_id))
    file = f"{record['instruments']}-{record['render']}.npz"
    own = load_readings(place.output / "readings" / file)
    if "inception" in own:
        scores.features[item.item_id] = own["inception"]


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None

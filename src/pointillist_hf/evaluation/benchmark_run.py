# SPDX-License-Identifier: Apache-2.0
"""A comparison from renders to tables, json and page. Stopped and run again, it goes on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ..exporters.atomic_file import write_atomically
from ..exporters.json_file import write_json_object
from ..exporters.write_targets import resolve_folder
from ..pretrained.weights_files import file_sha256
from .benchmark_choice import BenchmarkConfig
from .benchmark_making import prepare_benchmark
from .comparisons import compare_rows
from .face_reading import check_landmarks, read_landmark_file
from .instruments import InstrumentPaths, open_instruments
from .manifest import TASKS, Manifest, read_manifest
from .metric_catalogue import CATALOGUE
from .model_variants import find_variants
from .own_renders import PipelineRun, render_pipeline
from .renders import RenderSet, find_renders
from .report_page import write_report
from .report_text import build_column, build_sections
from .scoring import SystemScores, real_features, score_systems
from .summary import common_items, floor_of_fid, group_figures, summarise
from .tables import SPEED

RESULTS_FILE, TABLES_FILE = "results.json", "results.md"
PACKAGES = ("pointillist-hf", "torch", "numpy", "pillow", "transformers", "opencv-python-headless")
MAX_NAME = 64
OWN_NAME = "AvatarPointillist"


@dataclass(frozen=True)
class EvaluationConfig:
    """How a comparison is measured and shown."""

    paths: InstrumentPaths = field(default_factory=InstrumentPaths)
    landmarks: Path | None = None  # of MediaPipe, see `face_reading.read_landmark_file`
    table: int = 1  # of the paper: 1, or 2 for ablations
    with_published: bool = False  # the paper's rows beneath, as not comparable
    seed: int = 0  # of the intervals
    num_proc: int = 1
    show_progress: bool = True

    def __post_init__(self) -> None:
        if self.table not in (1, 2):
            raise ValueError(f"`table` must be 1 or 2, got {self.table}.")


def run_benchmark(
    benchmark: Path,
    output: Path,
    renders: Sequence[str],
    config: EvaluationConfig,
    *,
    pipeline: PipelineRun | None = None,
    variants: Path | None = None,
    captures: Sequence[Path] = (),
    drawn: BenchmarkConfig | None = None,
    dataset: str = "captures",
) -> dict[str, object]:
    """All of it: makes the benchmark if it is not there, runs pipelines, measures.

    Args:
        benchmark: Its folder.
        output: Folder of the results.
        renders: "SYSTEM=FOLDER" each.
        config: How to measure.
        pipeline: To run on the benchmark, as the system "AvatarPointillist".
        variants: Folder of what differs from the pipeline, see `model_variants`; each variant is
            run in place of the pipeline.
        captures: To make the benchmark of.
        drawn: What a new benchmark draws.
        dataset: What a new benchmark calls its data.

    Returns:
        What results.json holds.
    """
    folders = parse_renders(renders)
    bar = config.show_progress
    manifest = prepare_benchmark(benchmark, captures, drawn, dataset=dataset, show_progress=bar)
    runs = _list_runs(pipeline, variants)
    rows = {row: [*named] for row, named in runs.items()} | {name: [name] for name in folders}
    if len(rows) < len(runs) + len(folders):
        raise ValueError("`renders` and `variants` must have different names.")
    own: dict[str, Path] = {}
    pool = {"num_proc": config.num_proc, "show_progress": bar}
    for name, run in (pair for named in runs.values() for pair in named.items()):
        own[name] = output / "renders" / name
        _check_names([name])
        render_pipeline(run, benchmark, manifest, own[name], name=name, **pool)
    return evaluate_renders(benchmark, own | folders, output, config, rows=rows)


def _list_runs(
    pipeline: PipelineRun | None, variants: Path | None
) -> dict[str, dict[str, PipelineRun]]:
    """Runs of each row, by the name of the system."""
    if variants is None:
        return {} if pipeline is None else {OWN_NAME: {OWN_NAME: pipeline}}
    if pipeline is None:
        raise ValueError("`model` must be given with `variants`: it has the parts that they share.")
    return {
        row: {
            row if len(places) == 1 else f"{row} {place.name}": replace(
                pipeline, variant=str(place)
            )
            for place in places
        }
        for row, places in find_variants(variants).items()
    }


def parse_renders(renders: Sequence[str]) -> dict[str, Path]:
    """Folders by system of "SYSTEM=FOLDER" each.

    Raises:
        ValueError: One has another form, or a system comes twice.
    """
    folders: dict[str, Path] = {}
    for text in renders:
        system, _, folder = text.partition("=")
        if not system or not folder:
            raise ValueError(f"`renders` must be of the form SYSTEM=FOLDER, got {text!r}.")
        if system in folders:
            raise ValueError(f"`renders` must name every system once, got {system!r} again.")
        folders[system] = Path(folder)
    return folders


def evaluate_renders(
    benchmark: str | Path,
    renders: Mapping[str, str | Path],
    output: str | Path,
    config: EvaluationConfig | None = None,
    *,
    rows: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, object]:
    """Measures the renders of systems against a benchmark; writes results.json, .md and a page.

    Args:
        benchmark: Folder with a manifest.
        renders: Folders of renders by the system's name, in the order of the table's rows.
        output: Folder of the results, which also keeps what was measured so far.
        config: How.
        rows: Systems of each row of the tables, where several are one system that was trained
            several times; None gives each its own.

    Returns:
        What results.json holds.

    Raises:
        FileNotFoundError: The benchmark or a folder is missing.
        ValueError: There is no system, or a name is unfit for a file.
    """
    config, benchmark = config or EvaluationConfig(), Path(benchmark)
    output = resolve_folder(output)
    _check_names(renders)
    manifest = read_manifest(benchmark)
    _check_pictures(benchmark, manifest)
    sets = [find_renders(system, folder, manifest) for system, folder in renders.items()]
    landmarks = None if config.landmarks is None else read_landmark_file(config.landmarks)
    if landmarks is not None:
        check_landmarks(landmarks, _hashes(sets, manifest))
    pool = {"num_proc": config.num_proc, "show_progress": config.show_progress}
    scores = score_systems(
        sets, benchmark, manifest, output, config.paths, landmarks=landmarks, **pool
    )
    real = real_features(benchmark, manifest, output, config.paths, **pool)
    rows = rows or {system: [system] for system in renders}
    figures = summarise(scores, manifest, real, seed=config.seed)
    instruments = open_instruments(config.paths)
    about = {one.system: one.about for one in sets}
    results = {
        "protocol": {"sha256": manifest.sha256, "dataset": manifest.dataset},
        "figures": group_figures(figures, rows),
        "trainings": {s: figures[s] for names in rows.values() if len(names) > 1 for s in names},
        "comparisons": compare_rows(scores, manifest, rows, seed=config.seed),
        "speed": {row: _speed([about[system] for system in rows[row]]) for row in rows},
        "fid_floor": floor_of_fid(real),
        "num_items": {t: len(manifest.of_task(t)) for t in TASKS},
        "num_common": {t: _count_common(scores, manifest, t) for t in TASKS},
        "systems": about,
        "faults": {one.system: [asdict(fault) for fault in one.faults] for one in sets},
        "metrics": {name: asdict(metric) for name, metric in CATALOGUE.items()},
        "weights": instruments.weights,
        "missing_weights": instruments.missing,
        "environment": _environment(),
    }
    sections = build_sections(
        results,
        {one.system: one.faults for one in sets},
        table=config.table,
        with_published=config.with_published,
    )
    text = "".join(f"## {section.title}\n\n{section.text}\n" for section in sections)
    write_json_object(results, output / RESULTS_FILE)
    write_atomically(output / TABLES_FILE, lambda unfinished: unfinished.write_text(text, "utf-8"))
    columns = {row: build_column(scores[systems[0]]) for row, systems in rows.items()}
    write_report(output, benchmark, manifest, columns, sections)
    return results


def _speed(about: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Means of what systems say of their speed and size."""
    said = {name: [one[name] for one in about if name in one] for name in SPEED}
    return {
        name: sum(values) / len(values)
        for name, values in said.items()
        if values and all(isinstance(value, int | float) for value in values)
    }


def _count_common(scores: Mapping[str, SystemScores], manifest: Manifest, task: str) -> int:
    return sum(item.task == task for item in common_items(scores, manifest))


def _hashes(sets: Sequence[RenderSet], manifest: Manifest) -> dict[str, str]:
    """SHA-256 of all pictures whose landmarks are compared."""
    targets = {f"targets/{item.target}.png": item.target_sha256 for item in manifest.items}
    return targets | {str(one.files[i]): one.sha256[i] for one in sets for i in one.files}


def _check_names(renders: Collection[str]) -> None:
    if not renders:
        raise ValueError("`renders` must name at least one system, got none.")
    for name in renders:
        is_plain = name and len(name) <= MAX_NAME and not {*name} & {*'/\\|<>:"*?\0'}
        if not is_plain or name.startswith(".") or name == "targets":
            raise ValueError(
                f"`renders` must name systems by up to {MAX_NAME} characters that a file may "
                f"have, got {name!r}."
            )


def _check_pictures(benchmark: Path, manifest: Manifest) -> None:
    """Refuses a benchmark whose pictures are not those of its manifest."""
    expected = {f"sources/{s.identity}.png": s.sha256 for s in manifest.sources}
    expected |= {f"targets/{item.target}.png": item.target_sha256 for item in manifest.items}
    for name, sha256 in expected.items():
        path = benchmark / name
        if not path.is_file():
            raise FileNotFoundError(f"`benchmark` must hold {name}, and {path} is not there.")
        if file_sha256(path) != sha256:
            raise ValueError(f"{path} is not the picture that the manifest was made with.")


def _environment() -> dict[str, str | int]:
    found = {"python": platform.python_version(), "threads": torch.get_num_threads()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

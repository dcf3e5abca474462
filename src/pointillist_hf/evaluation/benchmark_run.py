# SPDX-License-Identifier: Apache-2.0
"""A comparison from renders to tables, json and page. Stopped and run again, it goes on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..exporters.atomic_file import write_atomically
from ..exporters.json_file import write_json_object
from ..exporters.write_targets import resolve_folder
from ..pretrained.weights_files import file_sha256
from .benchmark_choice import BenchmarkConfig
from .benchmark_making import make_benchmark
from .face_reading import read_landmark_file
from .instruments import InstrumentPaths, open_instruments
from .manifest import MANIFEST_FILE, TASKS, Manifest, read_manifest
from .metric_catalogue import CATALOGUE, of_kinds
from .own_renders import PipelineRun, render_pipeline
from .renders import FAULTS, RenderSet, find_renders
from .report_page import Section, write_report
from .scoring import SystemScores, real_features, score_systems
from .summary import common_items, floor_of_fid, summarise
from .tables import TASK_TITLES, Figures, fault_table, own_table, paper_table, speed_table

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
    captures: Sequence[Path] = (),
    drawn: BenchmarkConfig | None = None,
) -> dict[str, object]:
    """All of it: makes the benchmark if it is not there, runs the pipeline, measures.

    Args:
        benchmark: Its folder.
        output: Folder of the results.
        renders: "SYSTEM=FOLDER" each.
        config: How to measure.
        pipeline: To run on the benchmark, as the system "AvatarPointillist".
        captures: To make the benchmark of.
        drawn: What a new benchmark draws.

    Returns:
        What results.json holds.
    """
    folders = parse_renders(renders)
    if captures and not (benchmark / MANIFEST_FILE).is_file():
        make_benchmark(captures, benchmark, drawn, show_progress=config.show_progress)
    manifest = read_manifest(benchmark)
    if pipeline is not None:
        folder = output / "renders" / OWN_NAME
        pool = {"num_proc": config.num_proc, "show_progress": config.show_progress}
        render_pipeline(pipeline, benchmark, manifest, folder, **pool)
        folders = {OWN_NAME: folder, **folders}
    return evaluate_renders(benchmark, folders, output, config)


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
        if system in folders or system == OWN_NAME:
            raise ValueError(f"`renders` must name every system once, got {system!r} again.")
        folders[system] = Path(folder)
    return folders


def evaluate_renders(
    benchmark: str | Path,
    renders: Mapping[str, str | Path],
    output: str | Path,
    config: EvaluationConfig | None = None,
) -> dict[str, object]:
    """Measures the renders of systems against a benchmark; writes results.json, .md and a page.

    Args:
        benchmark: Folder with a manifest.
        renders: Folders of renders by the system's name, in the order of the table's rows.
        output: Folder of the results, which also keeps what was measured so far.
        config: How.

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
    pool = {"num_proc": config.num_proc, "show_progress": config.show_progress}
    scores = score_systems(
        sets, benchmark, manifest, output, config.paths, landmarks=landmarks, **pool
    )
    real = real_features(benchmark, manifest, output, config.paths, **pool)
    figures = summarise(scores, manifest, real, seed=config.seed)
    instruments = open_instruments(config.paths)
    results = {
        "protocol": {"sha256": manifest.sha256, "dataset": manifest.dataset},
        "figures": figures,
        "fid_floor": floor_of_fid(real),
        "num_items": {t: len(manifest.of_task(t)) for t in TASKS},
        "num_common": {t: _count_common(scores, manifest, t) for t in TASKS},
        "systems": {one.system: one.about for one in sets},
        "faults": {one.system: [asdict(fault) for fault in one.faults] for one in sets},
        "metrics": {name: asdict(metric) for name, metric in CATALOGUE.items()},
        "weights": instruments.weights,
        "missing_weights": instruments.missing,
        "environment": _environment(),
    }
    sections = _sections(results, figures, sets, config)
    text = "".join(f"## {section.title}\n\n{section.text}\n" for section in sections)
    write_json_object(results, output / RESULTS_FILE)
    write_atomically(output / TABLES_FILE, lambda unfinished: unfinished.write_text(text, "utf-8"))
    write_report(output, benchmark, manifest, sets, sections)
    return results


def _sections(
    results: Mapping, figures: Figures, sets: list[RenderSet], config: EvaluationConfig
) -> list[Section]:
    sections = [
        Section(
            f"Table {config.table}",
            paper_table(figures, table=config.table, with_published=config.with_published)
            + _paper_notes(results, figures),
        )
    ]
    sections += [
        Section(
            f"{TASK_TITLES[task]}, other metrics",
            own_table(figures, task) + _own_notes(task),
        )
        for task in TASKS
        if results["num_items"][task]
    ]
    if any(one.about for one in sets):
        sections.append(Section("Speed and size", speed_table({s.system: s.about for s in sets})))
    counts = {one.system: one.count_faults() for one in sets}
    total, shared = (sum(results[name].values()) for name in ("num_items", "num_common"))
    text = f"Figures are of the {shared} of {total} items that every system has.\n\n"
    sections.append(Section("Faults of the renders", text + fault_table(counts, FAULTS)))
    return sections


def _paper_notes(results: Mapping, figures: Figures) -> str:
    """What has to be known of the figures, one line each."""
    sizes = {
        task: {one[task]["fid"].get("num_items") for one in figures.values()} for task in TASKS
    }
    named = [f"FID@{n} ({task})" for task in TASKS for n in sizes[task] if n]
    floor = results["fid_floor"]
    metrics = [metric for metric in CATALOGUE.values() if metric.kind == "paper"]
    notes = [f"{metric.title}: {metric.note}." for metric in metrics if metric.note]
    absent = [
        m for m in metrics if all("mean" not in s[m.tasks[0]][m.name] for s in figures.values())
    ]
    notes += [f"{metric.title} was not measured: it needs {metric.needs}." for metric in absent]
    if named:
        notes.append(f"The number of pictures belongs to FID: {', '.join(named)}.")
    if floor["fid"] is not None:
        notes.append(
            f"Real pictures against other real ones of the same people: "
            f"{floor['fid']:.1f} (FID@{floor['num_items']})."
        )
    return "\n" + "".join(f"- {note}\n" for note in notes)


def _own_notes(task: str) -> str:
    """What the metrics of names of their own are."""
    noted = [metric for metric in of_kinds(task, "standin", "extra") if metric.note]
    lines = "".join(f"- {metric.title}: {metric.note}.\n" for metric in noted)
    return "\nNone of these is a metric of the paper.\n\n" + lines


def _count_common(scores: Mapping[str, SystemScores], manifest: Manifest, task: str) -> int:
    return sum(item.task == task for item in common_items(scores, manifest))


def _check_names(renders: Mapping[str, str | Path]) -> None:
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

# SPDX-License-Identifier: Apache-2.0
"""Floor 11. The command `pointillist-hf evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .default_model import EMBEDDED_FOLDER


def evaluate_systems(
    benchmark: Annotated[Path, typer.Argument(help="Its folder; `--captures` makes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "outputs/evaluation"
    ),
    renders: Annotated[
        list[str] | None, typer.Option(help="SYSTEM=FOLDER, renders of any system; repeat it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Pipeline to run on the benchmark.")] = None,
    variants: Annotated[
        Path | None, typer.Option(help="Folder of trained variants of --model, for Table 2.")
    ] = None,
    captures: Annotated[list[Path] | None, typer.Option(help="To make the benchmark of.")] = None,
    dataset: Annotated[str, typer.Option(help="Their name in the results.")] = "captures",
    num_identities: Annotated[int, typer.Option(help="People of a new benchmark.")] = 25,
    num_timesteps: Annotated[int, typer.Option(help="Times of each, likewise.")] = 16,
    num_views: Annotated[int, typer.Option(help="Cameras of each time, likewise.")] = 4,
    image_size: Annotated[int, typer.Option(help="Pixels, likewise.")] = 512,
    seed: Annotated[int, typer.Option(help="Of a new benchmark, avatars, intervals.")] = 0,
    refine_steps: Annotated[int | None, typer.Option(help="Of the pipeline's avatars.")] = None,
    tracker: Annotated[
        Path | None, typer.Option(help="Checkpoint whose portrait tracker finds keypoints.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of metric weights.")] = None,
    recognition: Annotated[Path | None, typer.Option(help="Face recognition network.")] = None,
    landmarks: Annotated[Path | None, typer.Option(help="MediaPipe's, an .npz.")] = None,
    table: Annotated[
        int | None, typer.Option(help="1, or 2 for ablations; 2 with --variants.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Print the paper's rows.")] = False,
    num_proc: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Measure systems as the paper does; an interrupted run goes on."""
    from .evaluation.benchmark_choice import BenchmarkConfig
    from .evaluation.benchmark_making import prepare_benchmark
    from .evaluation.benchmark_run import EvaluationConfig, run_benchmark
    from .evaluation.instruments import InstrumentPaths
    from .evaluation.own_renders import PipelineRun

    drawn = BenchmarkConfig(num_identities, num_timesteps, num_views, image_size, seed=seed)
    if captures and not renders and model is None and variants is None:
        manifest = prepare_benchmark(benchmark, captures, drawn, dataset=dataset)
        typer.echo(
            f"{benchmark} has {len(manifest.items)} items. Render them with any system, and "
            "measure it with --renders SYSTEM=FOLDER."
        )
        return
    checkpoint = tracker or (EMBEDDED_FOLDER if EMBEDDED_FOLDER.is_dir() else None)
    finder = None if checkpoint is None else checkpoint / "portrait_tracker"
    paths = InstrumentPaths(finder, weights, recognition)
    shown = table if table is not None else 1 if variants is None else 2
    results = run_benchmark(
        benchmark,
        output,
        renders or [],
        EvaluationConfig(paths, landmarks, shown, published, seed, num_proc),
        pipeline=None if model is None else PipelineRun(model, seed, refine_steps),
        variants=variants,
        captures=captures or [],
        dataset=dataset,
        drawn=drawn,
    )
    typer.echo((output / "results.md").read_text("utf-8"))
    typer.echo(f"{len(results['systems'])} systems in {output / 'index.html'}")

# SPDX-License-Identifier: Apache-2.0
"""Floor 11. The command `pointillist-hf evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .default_model import EMBEDDED_FOLDER


def evaluate_systems(
    benchmark: Annotated[Path, typer.Argument(help="Its folder; `--captures` makes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    renders: Annotated[
        list[str] | None, typer.Option(help="SYSTEM=FOLDER, renders of any system; repeat it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Pipeline to run on the benchmark.")] = None,
    captures: Annotated[list[Path] | None, typer.Option(help="To make the benchmark of.")] = None,
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
    table: Annotated[int, typer.Option(help="1, or 2 for ablations.")] = 1,
    published: Annotated[bool, typer.Option("--published", help="Print the paper's rows.")] = False,
    num_proc: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Measure systems as the paper does; an interrupted run goes on."""
    from .evaluation.benchmark_choice import BenchmarkConfig
    from .evaluation.benchmark_run import EvaluationConfig, run_benchmark
    from .evaluation.instruments import InstrumentPaths
    from .evaluation.own_renders import PipelineRun

    paths = InstrumentPaths((tracker or EMBEDDED_FOLDER) / "portrait_tracker", weights, recognition)
    results = run_benchmark(
        benchmark,
        output,
        renders or [],
        EvaluationConfig(paths, landmarks, table, published, seed, num_proc),
        pipeline=None if model is None else PipelineRun(model, seed, refine_steps),
        captures=captures or [],
        drawn=BenchmarkConfig(num_identities, num_timesteps, num_views, image_size, seed=seed),
    )
    typer.echo((output / "results.md").read_text("utf-8"))
    typer.echo(f"{len(results['systems'])} systems in {output / 'index.html'}")

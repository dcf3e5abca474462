# SPDX-License-Identifier: Apache-2.0
"""From photographs to avatars: likeness, other views, difficult pictures, time and memory.

python benchmarks/photographs.py --recognition DIR [--parts sittings people behind difficult times]
    [--image FILE ...] [--num_people N] [--output DIR]

The recognition network's weights are the user's, see `FaceRecognitionNetwork.read`. What has been
measured stays in the folder of the output and is not measured again; a new folder begins anew.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from heads.behind import average_behind, measure_behind
from heads.difficult import CASES
from heads.hardship import make_model, measure_case, summarise, write_sheets
from heads.population import FIRST_SEED, average, measure_person, print_table
from heads.sitting import measure_photograph
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline
from pointillist_hf.evaluation.face_recognition import FaceRecognitionNetwork
from pointillist_hf.evaluation.likeness import Likeness

ROOT = Path(__file__).parents[1]
STOPWATCH = Path(__file__).parent / "heads/stopwatch.py"
PARTS = ("sittings", "people", "behind", "difficult", "times")


@dataclass
class Arguments:
    """What is measured, with which model, and where it goes."""

    recognition: str = "outputs/face-api/package/model"
    model: str = str(ROOT / "model_cards/pointillist-tiny")
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    image: list[str] = field(default_factory=lambda: [str(ROOT / "examples/images/astronaut.jpg")])
    num_people: int = 16
    num_cases: int = len(CASES)
    refine_steps: int = 100
    output: str = "outputs/photographs"


def measure_sittings(arguments: Arguments, pipe: AvatarPipeline, folder: Path) -> dict:
    likeness = _read_likeness(arguments, pipe)
    figures = {}
    for path in map(Path, arguments.image):
        cache = folder / f"{path.stem}.json"
        if not cache.is_file():
            measured = measure_photograph(
                pipe, likeness, path, folder, refine_steps=arguments.refine_steps
            )
            cache.write_text(json.dumps(measured, indent=2) + "\n")
        figures[path.stem] = json.loads(cache.read_text())
    return figures


def measure_people(arguments: Arguments, pipe: AvatarPipeline, folder: Path) -> dict:
    likeness = _read_likeness(arguments, pipe)
    people = [
        measure_person(pipe, likeness, seed, folder, refine_steps=arguments.refine_steps)
        for seed in tqdm(range(FIRST_SEED, FIRST_SEED + arguments.num_people), "people")
    ]
    table = average(people)
    print("\n".join(print_table(table)))
    return {"people": len(people), "variants": table}


def measure_back(arguments: Arguments, pipe: AvatarPipeline, folder: Path) -> dict:
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.num_people)
    return average_behind([measure_behind(pipe, seed, folder) for seed in tqdm(seeds, "behind")])


def measure_difficult(arguments: Arguments, pipe: AvatarPipeline, folder: Path) -> dict:
    first, *others = map(Path, arguments.image)
    model = make_model(pipe, first, others[0] if others else None)
    names = list(CASES)[: arguments.num_cases]
    outcomes = [measure_case(pipe, model, name, folder) for name in tqdm(names, "photographs")]
    write_sheets(folder)
    return summarise(outcomes)


def measure_times(arguments: Arguments) -> dict:
    """Each number of threads in a process of its own."""
    figures = {}
    for threads in (1, 2):
        count, steps = str(threads), str(arguments.refine_steps)
        settings = {"OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}
        done = subprocess.run(
            [sys.executable, STOPWATCH, arguments.model, arguments.image[0], steps],
            env={**os.environ, **settings},
            check=True,
            capture_output=True,
            text=True,
        )
        figures[f"threads_{threads}"] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _read_likeness(arguments: Arguments, pipe: AvatarPipeline) -> Likeness:
    return Likeness(FaceRecognitionNetwork.read(arguments.recognition), pipe.portrait_tracker)


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    if not set(arguments.parts) <= set(PARTS):
        raise ValueError(f"`parts` must be some of {', '.join(PARTS)}, got {arguments.parts}.")
    # Warnings of the tracker are kept with the figures.
    logging.getLogger("pointillist_hf").setLevel(logging.ERROR)
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    results = output / "photographs.json"
    figures = json.loads(results.read_text()) if results.is_file() else {}
    figures["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    measures = {
        "sittings": measure_sittings,
        "people": measure_people,
        "behind": measure_back,
        "difficult": measure_difficult,
    }
    for part in arguments.parts:
        if part in measures:
            folder = output / part
            folder.mkdir(exist_ok=True)
            figures[part] = measures[part](arguments, pipe, folder)
        else:
            figures[part] = measure_times(arguments)
        results.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({n: v for n, v in figures.items() if n != "difficult"}, indent=2))


if __name__ == "__main__":
    main()

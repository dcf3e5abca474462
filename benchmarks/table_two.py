# SPDX-License-Identifier: Apache-2.0
"""Table 2 on synthetic people: the decoders of `examples/ablate_decoder.py`.

python benchmarks/table_two.py --benchmark DIR --ablation DIR [--model DIR] [--recognition DIR]

What `pointillist-hf evaluate --model --variants` measures, in a fraction of the time: tracking and
generation are the same for all of them and done once per person. `table_one.py` makes a benchmark.
Pictures: a held-out person per row, a variant per column; and a ponytail from behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.data.population.photography import portrait_cameras, take_portraits
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import Subject, build_subject
from pointillist_hf.data.tokens.synthetic import FIRST_SEED
from pointillist_hf.decoding.generation import PointGenerationOutput
from pointillist_hf.evaluation.benchmark_run import EvaluationConfig, evaluate_renders
from pointillist_hf.evaluation.instruments import InstrumentPaths
from pointillist_hf.evaluation.manifest import Manifest, read_manifest
from pointillist_hf.evaluation.model_variants import find_variants, load_variant
from pointillist_hf.evaluation.own_renders import describe_system, missing_people, render_person
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.exporters.json_file import write_json_object
from pointillist_hf.geometry.structures import RigParams
from pointillist_hf.refinement.portrait_view import PortraitView

PORTRAIT_SIZE, PICTURE_SIZE = 384, 224
WANTED_HAIR = "ponytail"
FRONT, BEHIND = (25.0, 8.0), (145.0, 12.0)  # azimuth and elevation, degrees


@dataclass
class Arguments:
    """What is measured, and where it goes."""

    benchmark: str = "outputs/evaluation/benchmark"
    ablation: str = "outputs/ablation"
    model: str = "model_cards/pointillist-tiny"
    recognition: str | None = None
    output: str = "outputs/table_two"
    results: str | None = None  # a file for the figures alone
    num_shown: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """What all variants share of a person."""

    context: Tensor
    rig_params: RigParams
    generated: PointGenerationOutput
    views: list[PortraitView] | None
    seconds: float


def prepare(pipe: AvatarPipeline, image: Path | Image.Image, seed: int) -> Start:
    """Tracks, encodes and generates, as the pipeline's call does."""
    start = time.perf_counter()
    tracked = pipe.track_portraits([image])
    rig_params, context, layouts = pipe.encode_image([image], None, tracked)
    views = pipe.frame_portraits(tracked, torch.zeros(1, dtype=torch.int64))
    generated = pipe.generate_tokens(context, rig_params, layouts, seeds=[seed])
    return Start(context, rig_params, generated, views, time.perf_counter() - start)


def finish(pipe: AvatarPipeline, start: Start) -> Avatar:
    """The avatar of a variant."""
    ids, states = start.generated.input_ids, start.generated.token_hidden_states
    clouds = pipe.decode_points(ids, start.rig_params, start.views)
    gaussians = pipe.decode_gaussians(clouds, states, start.context, start.views)
    return Avatar(gaussians[0], clouds[0].bindings, pipe.rig, start.rig_params.betas[0])


def list_trainings(ablation: Path) -> Iterator[tuple[str, str, Path]]:
    """Row, system and folder of each training."""
    for row, places in find_variants(ablation).items():
        for place in places:
            yield row, f"{row} {place.name}", place


def render_variants(arguments: Arguments, manifest: Manifest) -> dict[str, dict[str, Path]]:
    """Pictures of all trainings; folders by row and system."""
    benchmark, renders = Path(arguments.benchmark), Path(arguments.output) / "renders"
    base = AvatarPipeline.from_pretrained(arguments.model)
    base.set_progress_bar_config(disable=True)
    starts: dict[str, Start] = {}
    rows: dict[str, dict[str, Path]] = {}
    for row, system, place in tqdm([*list_trainings(Path(arguments.ablation))], "trainings"):
        folder = rows.setdefault(row, {}).setdefault(system, renders / system)
        missing = missing_people(folder, manifest)
        pipe = load_variant(arguments.model, place) if missing else None
        for person in missing:
            if person not in starts:
                source = benchmark / f"sources/{person}.png"
                starts[person] = prepare(base, source, arguments.seed)
            began, known = time.perf_counter(), starts[person]
            avatar = finish(pipe, known)
            seconds = known.seconds + time.perf_counter() - began
            render_person(avatar, seconds, benchmark, manifest, person, folder)
        about = {"name": system, "model": arguments.model, "variant": str(place)}
        describe_system({**about, "seed": arguments.seed}, folder, manifest)
    return rows


def find_people(count: int) -> list[Subject]:
    """The first held-out people, and the first with a ponytail."""
    people, seed = [], FIRST_SEED["test"]
    while len(people) < count:
        people.append(build_subject(seed, resolution="low"))
        seed += 1
    while people[-1].identity.hair_style != WANTED_HAIR:
        subject = build_subject(seed, resolution="low")
        seed += 1
        if subject.identity.hair_style == WANTED_HAIR:
            people.append(subject)
    return people


def draw_people(arguments: Arguments, path: Path) -> list[str]:
    """Writes a row of pictures per person: portrait, truth, variants. Returns hair styles."""
    base = AvatarPipeline.from_pretrained(arguments.model)
    base.set_progress_bar_config(disable=True)
    firsts = {}
    for row, _, place in list_trainings(Path(arguments.ablation)):
        firsts.setdefault(row, place)
    pipes = {row: load_variant(arguments.model, place) for row, place in firsts.items()}
    people, pictures, labels = find_people(arguments.num_shown), [], []
    for subject in people:
        behind = subject.identity.hair_style == WANTED_HAIR
        azimuth, elevation = BEHIND if behind else FRONT
        camera = portrait_cameras([azimuth], [elevation], size=PICTURE_SIZE)
        taken = take_portraits(subject, base.rig, 1, size=PORTRAIT_SIZE, seed=1).images[0]
        image = Image.fromarray((255 * taken).round().clip(0, 255).astype("uint8"))
        start = prepare(base, image, arguments.seed)
        truth = torch.from_numpy(render_frame(subject.at_rest(), camera))
        portrait = Image.new("RGBA", image.size, "white")
        portrait.alpha_composite(image)
        small = portrait.convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE))
        flat = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).float() / 255
        pictures += [flat.view(PICTURE_SIZE, PICTURE_SIZE, 3)]
        pictures += [truth[..., :3] * truth[..., 3:] + 1 - truth[..., 3:]]
        pictures += [finish(pipe, start).render(camera)[0] for pipe in pipes.values()]
        labels += ["portrait", "truth", *pipes]
    columns = 2 + len(pipes)
    write_contact_sheet(torch.stack(pictures), path, columns=columns, labels=labels)
    return [subject.identity.hair_style for subject in people]


@torch.no_grad()
def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output, benchmark = Path(arguments.output), Path(arguments.benchmark)
    output.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(benchmark)
    rows = render_variants(arguments, manifest)
    paths = InstrumentPaths(
        tracker=Path(arguments.model) / "portrait_tracker", recognition=arguments.recognition
    )
    results = evaluate_renders(
        benchmark,
        {system: folder for systems in rows.values() for system, folder in systems.items()},
        output,
        EvaluationConfig(paths=paths, table=2),
        rows={row: [*systems] for row, systems in rows.items()},
    )
    print((output / "results.md").read_text("utf-8"))
    shown = draw_people(arguments, output / "table_two.png")
    found = {
        "shown": shown,
        "people": len(manifest.identities),
        **{n: results[n] for n in ("protocol", "num_items", "figures", "trainings", "speed")},
        "environment": results["environment"],
    }
    if arguments.results:
        write_json_object(found, arguments.results)
    print(f"{len(results['systems'])} trainings: {output / 'index.html'}")


if __name__ == "__main__":
    main()

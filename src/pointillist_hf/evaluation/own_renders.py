# SPDX-License-Identifier: Apache-2.0
"""Runs our pipeline over a benchmark: an avatar of each source picture, posed and rendered.

Avatars see the source picture and nothing else of a person. They are driven by the benchmark's
tracks, which must be of the pipeline's rig.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from PIL import Image

from ..avatar import Avatar
from ..data.rig_reference import describe_rig
from ..data.work_pool import run_jobs
from ..exporters.atomic_file import write_atomically
from ..exporters.json_file import read_json_object, write_json_object
from ..motion.vhap_params import read_params
from ..pipeline_avatar import AvatarPipeline
from ..rigs.flame_rig import FlameHeadRig
from ..rigs.head_rig import HeadRig
from .manifest import Item, Manifest, item_camera
from .model_variants import load_variant, model_digest
from .renders import SYSTEM_FILE

logger = logging.getLogger(__name__)

AVATARS = "avatars"  # beside the pictures, one .splat and one .json each
PATHS = ("name", "model", "variant")


@dataclass(frozen=True)
class PipelineRun:
    """What makes the renders; another one has a folder of its own."""

    model: str
    seed: int = 0
    refine_steps: int | None = None  # None: the model's own
    variant: str | None = None  # folder of what differs from the model, see `model_variants`


def render_pipeline(
    run: PipelineRun,
    benchmark: Path,
    manifest: Manifest,
    folder: Path,
    *,
    name: str = "AvatarPipeline",
    num_proc: int = 1,
    show_progress: bool = True,
) -> None:
    """Writes a picture for each item; what exists is left alone, so that a run goes on.

    Args:
        run: The model and its settings.
        benchmark: Its folder.
        manifest: Its manifest.
        folder: Of the renders.
        name: Of the system.
        num_proc: Processes.
        show_progress: Whether to draw a bar.

    Raises:
        ValueError: The folder holds renders of another run, or tracks are of another rig.
    """
    about = {
        "name": name,
        "model": run.model,
        "variant": run.variant,
        "weights": model_digest(run.model, run.variant),
        "seed": run.seed,
        "refine_steps": run.refine_steps,
        "manifest": manifest.sha256,
    }
    _claim(folder, about)
    missing = missing_people(folder, manifest)
    work = partial(_render_person, run=run, benchmark=benchmark, manifest=manifest, folder=folder)
    jobs = run_jobs(work, missing, num_proc=num_proc, unit="avatar", show_progress=show_progress)
    for person, problem in jobs:
        if problem:
            logger.warning("No avatar of %s: %s", person, problem)
    # Processes that work beside each other are slower each.
    describe_system({**about, "num_proc": num_proc}, folder, manifest)


def render_person(
    avatar: Avatar,
    seconds: float,
    benchmark: Path,
    manifest: Manifest,
    identity: str,
    folder: Path,
) -> None:
    """Writes the pictures of a person, the avatar, and what both took.

    The last is written last: a person without it was not finished, and is made again as a whole.

    Args:
        avatar: Of the person, on the rig of the benchmark's tracks.
        seconds: That it took to make.
        benchmark: Folder of the benchmark.
        manifest: Its manifest.
        identity: Of the person.
        folder: Of the renders.
    """
    avatar.export(folder / AVATARS / f"{identity}.splat")
    items = _items(manifest, identity)
    background = torch.tensor(manifest.background)
    tracks = {
        name: read_params(benchmark / "tracks" / f"{name}.npz")[0]
        for name in {item.capture for item in items}
    }
    start = time.perf_counter()
    for item in items:
        posed = avatar.animate(tracks[item.capture][item.timestep : item.timestep + 1])
        camera = item_camera(item, manifest.image_size)
        pixels = posed.render(camera, background=background)[0].clamp(0, 1)
        picture = Image.fromarray((255 * pixels).round().byte().numpy())
        write_atomically(_file(folder, item), partial(picture.save, format="PNG"))
    rate = len(items) / (time.perf_counter() - start)
    figures = {"seconds": seconds, "frames_per_second": rate}
    write_json_object(figures, folder / AVATARS / f"{identity}.json")


def missing_people(folder: Path, manifest: Manifest) -> list[str]:
    """Whom a folder of `render_person` lacks pictures or figures of."""
    return [
        name
        for name in manifest.identities
        if not (folder / AVATARS / f"{name}.json").is_file()
        or any(not _file(folder, item).is_file() for item in _items(manifest, name))
    ]


def describe_system(about: Mapping[str, object], folder: Path, manifest: Manifest) -> None:
    """Writes system.json: what is said, and means of what `render_person` measured."""
    write_json_object({**about, **_measure(folder, manifest)}, folder / SYSTEM_FILE)


def check_rig(rig: HeadRig, manifest: Manifest) -> None:
    """Refuses a rig that the benchmark's tracks do not move.

    Resolutions of one rig share their parameters, and versions of FLAME do not.
    """
    tracked = manifest.rig or {"class": FlameHeadRig.__name__}
    own = describe_rig(rig)
    names = ("class", "version") if "version" in tracked else ("class",)
    if any(own.get(name) != tracked.get(name) for name in names):
        raise ValueError(
            f"The benchmark's tracks are of {_name_rig(tracked)} and `model` has {_name_rig(own)}; "
            "track the captures on its rig, or render elsewhere and use `--renders`."
        )
    if own != tracked:
        _warn_once(f"Tracks of {_name_rig(tracked)} move {_name_rig(own)}.")


@lru_cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)


def _name_rig(words: Mapping[str, object]) -> str:
    return " ".join(str(value) for value in words.values())


@lru_cache(1)
def _pipeline(model: str, variant: str | None) -> AvatarPipeline:
    pipe = load_variant(model, variant)
    pipe.set_progress_bar_config(disable=True)  # there is one of all avatars
    return pipe


def _render_person(
    name: str, run: PipelineRun, benchmark: Path, manifest: Manifest, folder: Path
) -> str:
    """Why there are no pictures of a person; empty if there are."""
    pipe = _pipeline(run.model, run.variant)
    check_rig(pipe.rig, manifest)
    start = time.perf_counter()
    try:
        source = benchmark / "sources" / f"{name}.png"
        result = pipe(source, seed=run.seed, refine_steps=run.refine_steps)
    except ValueError as error:  # no face, most of all
        return str(error)
    seconds = time.perf_counter() - start
    render_person(result.avatar, seconds, benchmark, manifest, name, folder)
    return ""


def _measure(folder: Path, manifest: Manifest) -> dict[str, float]:
    """Means over avatars: seconds, frames per second, bytes of the .splat."""
    files = [folder / AVATARS / f"{name}.json" for name in manifest.identities]
    found = [read_json_object(file) for file in files if file.is_file()]
    if not found:
        return {}
    sizes = [file.with_suffix(".splat").stat().st_size for file in files if file.is_file()]
    return {
        "seconds_per_avatar": sum(one["seconds"] for one in found) / len(found),
        "frames_per_second": sum(one["frames_per_second"] for one in found) / len(found),
        "bytes_per_avatar": sum(sizes) / len(sizes),
    }


def _claim(folder: Path, about: dict[str, object]) -> None:
    """Marks a folder as that of a run, or refuses the folder of another one."""
    path = folder / SYSTEM_FILE
    if not path.is_file():
        write_json_object(about, path)
        return
    found = read_json_object(path)
    # Weights that are known say more than the paths by which they were reached.
    passed_over = PATHS if about["weights"] else ()
    for name, value in about.items():
        if name not in passed_over and found.get(name) != value:
            raise ValueError(
                f"{folder} holds renders of another run: `{name}` was {found.get(name)!r}, and is "
                f"{value!r}. Name another output folder, or remove it."
            )


def _items(manifest: Manifest, identity: str) -> list[Item]:
    return [item for item in manifest.items if item.identity == identity]


def _file(folder: Path, item: Item) -> Path:
    return folder / f"{item.item_id}.png"

# SPDX-License-Identifier: Apache-2.0
"""Runs fits from folder to folder: with a bar, checkpoints, and many people at once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ...exporters.folder_owner import own_folder
from ...exporters.path_names import check_path_name
from ...rendering.similarity import psnr
from ..captures.reading import capture_digest, read_capture
from ..cluster import seen_from
from ..rig_reference import match_rig, open_rig
from ..work_pool import run_jobs
from .config import FitConfig
from .fits import FIT_FILE, FittedPerson, read_notes, relative_to, write_fit
from .optimisation import Fit

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
PSNR_MEMORY = 0.98  # of the running mean in the bar
BAR_STEPS = 20
MEASURED_PICTURES = 32  # of each split


def fit_capture(
    capture_dir: str | Path,
    output_dir: str | Path,
    config: FitConfig | None = None,
    *,
    flame_path: str | Path | None = None,
    flame_version: str | None = None,
    device: str = "cpu",
    show_progress: bool = True,
) -> dict[str, float]:
    """Fits a capture and writes the result; an interrupted call goes on from its checkpoint.

    The same arguments give the same files, whether or not the fit was interrupted.

    Args:
        capture_dir: See `captures`.
        output_dir: See `fits`. A finished fit is left as it is.
        config: Settings; by default GaussianAvatars'.
        flame_path: The user's FLAME, for captures on FLAME.
        flame_version: Which release it is, if its name does not say.
        device: "cuda" draws with gsplat.
        show_progress: Whether to draw a bar with PSNR and number of splats.

    Raises:
        BlockingIOError: Another process fits into the same folder.

    Returns:
        Figures: see `measure`. Empty for a fit that was finished before.
    """
    capture_dir, output_dir = Path(capture_dir), Path(output_dir)
    check_device(device)
    check_path_name("output_dir", output_dir)
    config = config or FitConfig()
    capture = read_capture(capture_dir)
    origin = {"capture_digest": capture_digest(capture), "config": asdict(config)}
    if (output_dir / FIT_FILE).is_file():
        _check_origin(output_dir, origin)
        logger.info("%s is finished.", output_dir)
        return {}
    rig = open_rig(
        capture.rig, source=capture_dir, flame_path=flame_path, flame_version=flame_version
    )
    fit = Fit(match_rig(capture, rig), rig, config, device=device)
    fit.state.origin = origin
    with own_folder(output_dir):
        checkpoint = output_dir / CHECKPOINT_FILE
        if checkpoint.is_file():
            fit.state.restore(checkpoint)
        seconds = _run(fit, checkpoint, show_progress)
        figures = measure(fit)
        person = FittedPerson(
            splats=fit.detached_splats(),
            rig=rig.to("cpu"),
            rig_params=fit.detached_params(),
            static_offset=fit.static_offset.cpu(),
            notes={
                "capture": relative_to(capture_dir, output_dir),
                **origin,
                "figures": figures,
            },
        )
        write_fit(person, output_dir, iteration=config.num_steps)
        checkpoint.unlink(missing_ok=True)
    return figures | {"num_points": len(person.splats), "seconds": seconds}


def check_device(device: str) -> None:
    """Refuses a device that this machine, or torch, does not have."""
    try:
        is_there = torch.device(device).type == "cpu" or torch.cuda.is_available()
    except RuntimeError:
        is_there = False
    if not is_there:
        raise ValueError(f"`device` must be one that torch has here, got {device!r}.")


def _check_origin(output_dir: Path, origin: dict[str, object]) -> None:
    notes = read_notes(output_dir)
    if any(notes.get(name) != value for name, value in origin.items()):
        raise ValueError(
            f"`output_dir` must be empty or hold a fit of this capture with these settings, and "
            f"{output_dir} holds another one. Choose another folder, or remove it."
        )


def _run(fit: Fit, checkpoint: Path, show_progress: bool) -> float:
    """All steps that are left. Returns seconds."""
    config, state = fit.config, fit.state
    started, mean_mse = time.perf_counter(), None
    bar = tqdm(
        total=config.num_steps,
        initial=state.step,
        desc=fit.capture.name,
        disable=not show_progress,
        unit="step",
    )
    with bar:
        while state.step < config.num_steps:
            mse = fit.advance()["mse"]
            mean_mse = mse if mean_mse is None else PSNR_MEMORY * mean_mse + (1 - PSNR_MEMORY) * mse
            bar.update()
            if state.step % BAR_STEPS == 0:
                decibels = -10 * math.log10(max(mean_mse, 1e-12))
                bar.set_postfix(psnr=f"{decibels:.1f}", points=len(state), refresh=False)
            if state.step % config.save_every == 0 and state.step < config.num_steps:
                state.save(checkpoint)
    return time.perf_counter() - started


def measure(fit: Fit) -> dict[str, float]:
    """PSNR of each split, decibels: of whole pictures, and "_head" on the pixels of the person.

    A camera is held out for "val", a time for "test".
    """
    figures = {}
    for split in ("train", "val", "test"):
        numbers = fit.capture.of_split(split)
        if not numbers:
            continue
        whole, person = [], []
        # By lot: every n-th picture would often be of the same few cameras.
        order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))
        for number in [numbers[i] for i in order[:MEASURED_PICTURES].tolist()]:
            rendered, target = fit.render(number), fit.capture.images[number]
            whole.append(float(psnr(rendered[None], target[None])))
            inside = fit.capture.masks[number][..., 0] > 0.5
            if inside.any():
                person.append(float(psnr(rendered[inside][None], target[inside][None])))
        figures[f"psnr_{split}"] = sum(whole) / len(whole)
        if person:
            figures[f"psnr_{split}_head"] = sum(person) / len(person)
    return figures


def fit_captures(
    captures: Sequence[str | Path],
    output_dir: str | Path,
    config: FitConfig | None = None,
    *,
    flame_path: str | Path | None = None,
    flame_version: str | None = None,
    num_proc: int = 1,
    cluster: str | None = None,
    device: str = "cpu",
    show_progress: bool = True,
) -> dict[str, str]:
    """Fits many people, each into a folder of its own; finished ones are not done again.

    One that fails is reported and the others go on.

    Args:
        captures: Folders of captures, of different names.
        output_dir: Gets a folder for each, called as the capture is.
        config: Settings.
        flame_path: The user's FLAME, for captures on FLAME.
        flame_version: Which release it is, if its name does not say.
        num_proc: Processes; each fits one person with one thread.
        cluster: Address of a dask scheduler, whose workers fit instead; see `data.cluster`.
        device: "cuda" draws with gsplat.
        show_progress: Whether to draw bars; on a cluster, one that counts people.

    Returns:
        What failed: capture to message.
    """
    folders = [seen_from(cluster, capture) for capture in captures]
    names = [folder.resolve().name for folder in folders]
    if len({*names}) < len(names):
        raise ValueError(f"`captures` must have different names, got {', '.join(names)}.")
    output_dir = seen_from(cluster, output_dir)
    jobs = [(folder, output_dir / name) for folder, name in zip(folders, names, strict=True)]
    work = partial(
        _try_fit,
        config=config,
        flame_path=seen_from(cluster, flame_path),
        flame_version=flame_version,
        device=device,
        # Each fit draws its own bar, here.
        show_progress=show_progress and cluster is None,
    )
    failed = {}
    is_counted = show_progress and cluster is not None
    results = run_jobs(
        work, jobs, num_proc=num_proc, cluster=cluster, unit="person", show_progress=is_counted
    )
    for job, problem in results:
        if problem is not None:
            logger.error("%s: %s", job[0], problem)
            failed[str(job[0])] = problem
    return failed


def _try_fit(
    job: tuple[Path, Path],
    config: FitConfig | None,
    flame_path: str | Path | None,
    flame_version: str | None,
    device: str,
    show_progress: bool,
) -> str | None:
    """Fits one person. Returns what went wrong, if anything did."""
    # One thread: tensors are small, and sums keep their order on every machine.
    torch.set_num_threads(1)
    try:
        fit_capture(
            *job,
            config,
            flame_path=flame_path,
            flame_version=flame_version,
            device=device,
            show_progress=show_progress,
        )
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return None

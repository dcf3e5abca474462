# SPDX-License-Identifier: Apache-2.0
"""Captures of synthetic people, in the layout of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...exporters.folder_owner import own_folder
from ...exporters.path_names import check_path_name
from ...geometry.cameras import orbit_cameras
from ...geometry.number_checks import check_integer, check_number
from ...geometry.structures import POSE_NAMES, Cameras, Capture, RigParams
from ...rigs.head_rig import HeadRig
from ...rigs.procedural_rig import ProceduralHeadRig, check_resolution
from ..population.photography import pose_subject, sample_motion
from ..population.scene import render_frame
from ..population.subject import Subject, build_subject
from ..rig_reference import describe_rig
from ..work_pool import run_jobs
from .reading import read_capture
from .writing import write_capture

# NeRSemble's sixteen cameras stand in front in two rows; ours also look from behind, because
# nothing else would tell what is there. Degrees: azimuth, elevation.
CAMERA_PLACES = (
    (50, 14), (50, -14), (30, 14), (30, -14), (10, 14), (10, -14), (-10, 14), (-10, -14),
    (0, 2), (-30, 14), (-30, -14), (-50, 14), (-50, -14), (90, 5), (-90, 5),
    (140, 10), (-140, 10), (180, 5), (75, 35), (-75, 35),
)  # fmt: skip
HELD_OUT_CAMERA = 8  # as in VHAP
TRAIN_SHARE = 0.7  # of the time steps, likewise
CAMERA_DISTANCE, CAMERA_FOV, CAMERA_TARGET = 1.15, 22.0, (0.0, -0.03, 0.0)


@dataclass(frozen=True)
class SyntheticCaptureConfig:
    """How the people are taken."""

    resolution: str = "full"
    image_size: int = 256  # pixels, square
    num_timesteps: int = 10  # the first one is at rest
    num_cameras: int = len(CAMERA_PLACES)
    hair_density: float = 0.35  # see `build_subject`

    def __post_init__(self) -> None:
        check_integer("num_cameras", self.num_cameras, 2, len(CAMERA_PLACES))
        check_integer("num_timesteps", self.num_timesteps, 1, 10**5)
        check_integer("image_size", self.image_size, 16, 2**12)
        check_number("hair_density", self.hair_density, 0, 10)
        check_resolution(self.resolution)


def capture_person(seed: int, config: SyntheticCaptureConfig | None = None) -> Capture:
    """The capture of the person of a seed, in memory. The same arguments give the same pictures."""
    config = config or SyntheticCaptureConfig()
    rig = ProceduralHeadRig(config.resolution)
    subject = build_subject(seed, resolution=config.resolution, density=config.hair_density)
    rig_params = _sample_timesteps(rig, subject, config.num_timesteps)
    ring = _camera_ring(config)
    rgba = [
        render_frame(posed, ring[c : c + 1])
        for posed in pose_subject(subject, rig, rig_params)
        for c in range(len(ring))
    ]
    pictures = torch.from_numpy(np.stack(rgba))
    alphas = pictures[..., 3:]
    timesteps = torch.arange(len(rig_params)).repeat_interleave(len(ring))
    places = torch.arange(len(ring)).repeat(len(rig_params))
    return Capture(
        name=_capture_name(seed),
        images=pictures[..., :3] * alphas + (1 - alphas),
        masks=alphas,
        cameras=ring[places],
        timesteps=timesteps,
        camera_ids=tuple(f"{int(place):02d}" for place in places),
        splits=_splits(timesteps, places, len(rig_params), len(ring)),
        rig_params=rig_params,
        static_offset=torch.zeros_like(rig.v_template),
        rig=describe_rig(rig),
    )


def write_synthetic_captures(
    output_dir: str | Path,
    num_identities: int,
    config: SyntheticCaptureConfig | None = None,
    *,
    seed: int = 0,
    num_proc: int = 1,
    show_progress: bool = True,
) -> list[Path]:
    """Writes captures of people, each in a folder of its own; those that exist are left alone.

    Args:
        output_dir: Folder of the captures.
        num_identities: People.
        config: How they are taken.
        seed: Of the first person; the others follow.
        num_proc: Processes.
        show_progress: Whether to draw a bar.

    Returns:
        Folders of all of them.
    """
    check_integer("num_identities", num_identities, 1, 10**6)
    check_integer("seed", seed, 0, 10**12)
    config, output_dir = config or SyntheticCaptureConfig(), Path(output_dir)
    check_path_name("output_dir", output_dir)
    seeds = range(seed, seed + num_identities)
    folders = {s: output_dir / _capture_name(s) for s in seeds}
    missing = [s for s in seeds if not folders[s].exists()]
    for folder in folders.values():
        if folder.exists():
            _check_capture(folder, config)
    work = partial(_write_person, output_dir=output_dir, config=config)
    bar = {"unit": "person", "show_progress": show_progress}
    with own_folder(output_dir):
        for _ in run_jobs(work, missing, num_proc=num_proc, **bar):
            pass
    return list(folders.values())


def _write_person(seed: int, output_dir: Path, config: SyntheticCaptureConfig) -> None:
    # As many threads everywhere: sums in another order would round differently.
    torch.set_num_threads(1)
    write_capture(capture_person(seed, config), output_dir / _capture_name(seed))


def _check_capture(folder: Path, config: SyntheticCaptureConfig) -> None:
    """Refuses a capture that was taken otherwise."""
    found = read_capture(folder)
    size = (found.cameras.width, found.cameras.height)
    count = config.num_timesteps * config.num_cameras
    rig = describe_rig(ProceduralHeadRig(config.resolution))
    if size != 2 * (config.image_size,) or len(found) != count or found.rig != rig:
        raise ValueError(
            f"`output_dir` must be empty or hold captures with these settings, and {folder} was "
            "taken with others. Choose another folder, or remove it."
        )


def _capture_name(seed: int) -> str:
    return f"person_{seed:07d}"


def _camera_ring(config: SyntheticCaptureConfig) -> Cameras:
    """The first cameras of the list, and always the one that is held out."""
    places = list(CAMERA_PLACES[: config.num_cameras])
    if config.num_cameras <= HELD_OUT_CAMERA:
        places[-1] = CAMERA_PLACES[HELD_OUT_CAMERA]
    azimuths, elevations = zip(*places, strict=True)
    return orbit_cameras(
        azimuths,
        elevations,
        distance=CAMERA_DISTANCE,
        fov=CAMERA_FOV,
        target=CAMERA_TARGET,
        width=config.image_size,
        height=config.image_size,
    )


def _sample_timesteps(rig: HeadRig, subject: Subject, num_timesteps: int) -> RigParams:
    """Rest, then lively frames."""
    rng = np.random.default_rng([subject.identity.seed, 3])
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    lively = sample_motion(rig, betas, num_timesteps, rng, strength=1.0)
    moves = (torch.arange(num_timesteps) > 0)[:, None].to(betas)
    names = ("expression", "transl", *POSE_NAMES)
    moved = {name: moves * getattr(lively, name) for name in names}
    return RigParams(betas=lively.betas, **moved)


def _splits(
    timesteps: Tensor, places: Tensor, num_timesteps: int, num_cameras: int
) -> tuple[str, ...]:
    held_out = HELD_OUT_CAMERA if num_cameras > HELD_OUT_CAMERA else num_cameras - 1
    num_train = max(1, int(np.ceil(TRAIN_SHARE * num_timesteps)))
    is_test = timesteps >= num_train
    return tuple(
        "test" if test else "val" if place == held_out else "train"
        for test, place in zip(is_test.tolist(), places.tolist(), strict=True)
    )

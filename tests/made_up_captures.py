# SPDX-License-Identifier: Apache-2.0
"""Captures of synthetic people as a group has them: in VHAP's layout, tracked with FLAME.

Each person is taken in several sequences, one folder each, tracked one by one. Nobody is ever at
rest: expressions and poses are never zero, and the shape of a person differs between sequences.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from made_up_flame import MadeUpFlame
from PIL import Image

from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.population.photography import pose_subject, sample_motion, take_portraits
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Capture, RigParams
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

# Names as NeRSemble's captures have them, and the seeds of our own people behind them.
PEOPLE = {"074": 4, "104": 9, "253": 12, "306": 17}
SEQUENCES = ("EXP-1", "EXP-2")
TAIL = "v16_DS4_whiteBg_staticOffset_maskBelowLine"
AZIMUTHS, ELEVATIONS = (0.0, 45.0, -45.0, 20.0, 180.0, 100.0), (3.0, 8.0, -6.0, -10.0, 5.0, 10.0)
HELD_OUT_CAMERA, NUM_TIMESTEPS, NUM_TRAIN = 3, 3, 2
HAIR_DENSITY, TRACKING_NOISE, OFFSET = 0.12, 0.02, 2e-4
NUM_VERTICES = 5143  # VHAP's, with teeth


def write_made_up_captures(folder: Path, flame: MadeUpFlame, *, size: int) -> list[Path]:
    """Writes all sequences of all people. Returns their folders."""
    rig, written = ProceduralHeadRig("full"), []
    for person, seed in PEOPLE.items():
        subject = build_subject(seed, resolution="full", density=HAIR_DENSITY)
        betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
        for number, sequence in enumerate(SEQUENCES):
            rng = np.random.default_rng([seed, number])
            path = folder / f"{person}_{sequence}_{TAIL}"
            written.append(path)
            if path.exists():
                continue
            params = sample_motion(rig, betas, NUM_TIMESTEPS, rng, strength=0.6)
            capture = _take(pose_subject(subject, rig, params), path.name, size)
            tracked = flame.track(params, rng, TRACKING_NOISE)
            offset = OFFSET * torch.tensor(rng.normal(size=(NUM_VERTICES, 3))).float()
            write_capture(replace(capture, rig_params=tracked, static_offset=offset), path)
    return written


def write_portraits(folder: Path, *, size: int) -> None:
    """A photograph of each person, in a light that no capture has."""
    rig = ProceduralHeadRig("full")
    folder.mkdir(parents=True, exist_ok=True)
    for person, seed in PEOPLE.items():
        subject = build_subject(seed, resolution="full", density=HAIR_DENSITY)
        pixels = take_portraits(subject, rig, 1, size=size, seed=1).images[0]
        pixels = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(folder / f"{person}.png")


def _take(posed: list, name: str, size: int) -> Capture:
    """All cameras at all times; without parameters."""
    ring = orbit_cameras(
        AZIMUTHS, ELEVATIONS, distance=1.15, fov=24.0, target=(0, -0.03, 0), width=size, height=size
    )
    rgba = [render_frame(frame, ring[c : c + 1]) for frame in posed for c in range(len(ring))]
    pictures = torch.from_numpy(np.stack(rgba))
    alphas = pictures[..., 3:]
    timesteps = torch.arange(len(posed)).repeat_interleave(len(ring))
    places = torch.arange(len(ring)).repeat(len(posed))
    return Capture(
        name=name,
        images=pictures[..., :3] * alphas + (1 - alphas),
        masks=alphas,
        cameras=ring[places],
        timesteps=timesteps,
        camera_ids=tuple(f"cam_{int(place):02d}" for place in places),
        splits=tuple(
            "test" if step >= NUM_TRAIN else "val" if place == HELD_OUT_CAMERA else "train"
            for step, place in zip(timesteps.tolist(), places.tolist(), strict=True)
        ),
        rig_params=_no_params(len(posed)),
        static_offset=torch.zeros(0, 3),
    )


def _no_params(frames: int) -> RigParams:
    zero = torch.zeros(frames, 3)
    names = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose", "transl")
    return RigParams(betas=zero, expression=zero, **dict.fromkeys(names, zero))

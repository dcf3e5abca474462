# SPDX-License-Identifier: Apache-2.0
"""How well a head is found in one photograph, on synthetic people whose heads are known.

python benchmarks/tracking.py [--num_people N] [--photographs FILE ...] [--output FILE]

People are seen from 0 to 50 degrees, with expressions, in varied light. The table of landmarks and
the priors of the fit were made on others: no seed from 2,000,000 to 2,999,999 was used.
"""

from __future__ import annotations

import json
import math
import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf.data.population.photography import (
    portrait_cameras,
    pose_subject,
    sample_motion,
)
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.shading import sample_lighting
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.rotations import axis_angle_to_matrix, nearest_rotation
from pointillist_hf.geometry.structures import RigParams
from pointillist_hf.portraits.landmark_fit import LandmarkFit, fit_landmarks
from pointillist_hf.portraits.portrait import Portrait
from pointillist_hf.portraits.portrait_tracker import PortraitTracker
from pointillist_hf.rigs.head_rig import HeadRig
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

FIRST_SEED = 2_000_000
MAX_YAW, ELEVATIONS, FAR = 50.0, (-6.0, 10.0), 30.0  # degrees
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # from OpenCV's axes to those of the head


@dataclass
class Arguments:
    """How many people are looked at, which photographs, and where the figures go."""

    num_people: int = 100
    size: int = 384
    strength: float = 0.5
    resolution: str = "low"
    tracker: str = "model_cards/pointillist-tiny/portrait_tracker"
    photographs: list[str] = field(default_factory=lambda: ["examples/images/astronaut.jpg"])
    output: str = "outputs/tracking.json"


@dataclass(frozen=True)
class Sitter:
    """A picture of a synthetic person, and the head in it."""

    image: Image.Image
    rig_params: RigParams  # one frame
    rotation: Tensor  # [3, 3] of the head as the camera sees it


def photograph(seed: int, rig: HeadRig, *, size: int, strength: float) -> Sitter:
    """The person of a seed, once."""
    rng = np.random.default_rng([seed, 3])
    subject = build_subject(seed, resolution=rig.config.resolution)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    motion = sample_motion(rig, betas, 1, rng, strength=strength)
    # The yaw is what is asked about, so the neck adds none.
    motion = replace(motion, neck_pose=torch.zeros(1, 3))
    yaw = rng.uniform(0, MAX_YAW) * rng.choice([-1, 1])
    camera = portrait_cameras([float(yaw)], [float(rng.uniform(*ELEVATIONS))], size=size)
    frame = render_frame(
        pose_subject(subject, rig, motion)[0], camera, lighting=sample_lighting(rng)
    )
    color = frame[..., :3] * frame[..., 3:] + rng.uniform(0.2, 0.9, 3) * (1 - frame[..., 3:])
    image = Image.fromarray((255 * color.clip(0, 1)).round().astype(np.uint8))
    return Sitter(image, motion, FLIP @ camera.viewmats[0, :3, :3])


def fit_portrait(rig: HeadRig, portrait: Portrait) -> LandmarkFit:
    """The fit of one portrait."""
    return fit_landmarks(
        rig,
        portrait.landmarks[None],
        portrait.irises[None],
        width=portrait.width,
        height=portrait.height,
    )


def turn_between(first: Tensor, second: Tensor) -> float:
    """Degrees."""
    cosine = ((first @ second.T).trace() - 1) / 2
    return math.degrees(math.acos(float(cosine.clamp(-1, 1))))


def shape_distance(points: Tensor, expected: Tensor) -> float:
    """Mean distance after the best similarity, millimetres. [V, 3] twice"""
    points, expected = points - points.mean(0), expected - expected.mean(0)
    turned = points @ nearest_rotation(expected.T @ points).T
    scale = (turned * expected).sum() / turned.square().sum()
    return 1000 * float((scale * turned - expected).norm(dim=-1).mean())


def measure(rig: HeadRig, sitter: Sitter, fit: LandmarkFit) -> dict[str, float]:
    """Errors of one fit."""
    face, params, truth = rig.mask("face"), fit.rig_params, sitter.rig_params
    shapes = [rig.canonical_vertices(p.betas)[0, face] for p in (params, truth)]
    change = (params.expression - truth.expression).abs()
    is_used = truth.expression.abs() > 0.05
    found = axis_angle_to_matrix(params.global_orient[0])
    return {
        "yaw": abs(math.degrees(math.atan2(sitter.rotation[0, 2], sitter.rotation[2, 2]))),
        "rotation": turn_between(found, sitter.rotation),
        "face": shape_distance(*shapes),
        "mean_face": shape_distance(rig.v_template[face], shapes[1]),
        "face_with_expression": shape_distance(
            *(rig(_at_rest(p))[0, face] for p in (params, truth))
        ),
        "expression": float(change.mean()),
        "used_expression": float(change[is_used].mean()) if is_used.any() else math.nan,
        "landmarks": 100 * float(fit.error[0]),
    }


def _at_rest(params: RigParams) -> RigParams:
    nothing = torch.zeros_like(params.transl)
    return replace(params, global_orient=nothing, neck_pose=nothing, transl=nothing)


def measure_people(arguments: Arguments, rig: HeadRig, tracker: PortraitTracker) -> dict:
    """Mean errors over people."""
    rows, missed = [], 0
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + arguments.num_people), "people"):
        sitter = photograph(seed, rig, size=arguments.size, strength=arguments.strength)
        try:
            portrait = tracker(sitter.image)[0]
        except ValueError:
            missed += 1
            continue
        rows.append(measure(rig, sitter, fit_portrait(rig, portrait)))

    def mean(name: str, low: float = 0.0, high: float = math.inf) -> float:
        return round(float(np.nanmean([r[name] for r in rows if low <= r["yaw"] <= high])), 3)

    return {
        "people": arguments.num_people,
        "missed": missed,
        "rotation_degrees": mean("rotation"),
        "rotation_degrees_up_to_30": mean("rotation", high=FAR),
        "rotation_degrees_beyond_30": mean("rotation", low=FAR),
        "face_mm": mean("face"),
        "mean_face_mm": mean("mean_face"),
        "face_with_expression_mm": mean("face_with_expression"),
        "expression": mean("expression"),
        "used_expression": mean("used_expression"),
        "landmarks_percent_of_eye_distance": mean("landmarks"),
    }


def measure_photograph(path: str, tracker: PortraitTracker) -> dict[str, dict[str, float]]:
    """Error of the landmarks and seconds, on both rigs, the rig's set-up counted in."""
    portrait = tracker(path)[0]
    figures = {}
    for resolution in ("full", "low"):
        rig = ProceduralHeadRig(resolution)
        fit_portrait(rig, portrait)
        start = time.process_time()
        fit = fit_portrait(rig, portrait)
        figures[resolution] = {
            "landmarks_percent_of_eye_distance": round(100 * float(fit.error[0]), 2),
            "cpu_seconds": round(time.process_time() - start, 2),
        }
    return figures


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    torch.set_num_threads(1)
    tracker = PortraitTracker.from_pretrained(arguments.tracker)
    figures = {
        "people": measure_people(arguments, ProceduralHeadRig(arguments.resolution), tracker),
        "photographs": {
            Path(path).stem: measure_photograph(path, tracker) for path in arguments.photographs
        },
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    print(json.dumps(figures, indent=2))
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

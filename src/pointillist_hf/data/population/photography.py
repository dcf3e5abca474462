# SPDX-License-Identifier: Apache-2.0
"""Pictures of the synthetic population: portraits to look at, views to learn from.

A portrait is taken from the front, in light that varies; a view from anywhere, in studio light, so
that the views of a person agree on a colour. Or all pictures of a person are taken in one light, so
that the colours of a portrait are those of the views.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...geometry.cameras import orbit_cameras
from ...geometry.structures import POSE_NAMES, Cameras, RigParams
from ...rigs.head_rig import HeadRig
from ..pictures import Pictures
from .scene import render_frame
from .shading import Lighting, sample_lighting
from .snapshots import photograph, snapshot_cameras
from .subject import METRES_PER_CM, PosedSubject, Subject

# How portraits are framed; `PortraitImageProcessor` crops photographs to the same frame.
PORTRAIT_DISTANCE, PORTRAIT_FOV, PORTRAIT_TARGET = 1.2, 20.0, (0.0, -0.03, 0.0)

PLAYFUL = (
    "mouthSmile", "mouthFrown", "mouthPucker", "mouthFunnel", "mouthStretch", "cheekPuff",
    "eyeBlink", "eyeWide", "eyeSquint", "browDown", "browInnerUp", "browOuterUp", "noseSneer",
    "mouthUpperUp", "mouthLowerDown", "mouthLeft", "mouthRight", "jawLeft", "jawRight",
)  # fmt: skip


def portrait_cameras(
    azimuths: list[float], elevations: list[float], *, size: int, zoom: float = 1.0
) -> Cameras:
    """Cameras in the frame of a portrait. Degrees; zoom > 1 comes closer."""
    return orbit_cameras(
        azimuths,
        elevations,
        distance=PORTRAIT_DISTANCE,
        fov=PORTRAIT_FOV / zoom,
        target=PORTRAIT_TARGET,
        width=size,
        height=size,
    )


def sample_motion(
    rig: HeadRig, betas: Tensor, num_frames: int, rng: np.random.Generator, *, strength: float
) -> RigParams:
    """Random expressions, head turns and gazes of one person.

    Args:
        rig: Whose parameters they are.
        betas: [S]
        num_frames: T.
        rng: Source of the draws.
        strength: 0 is neutral, 1 is lively.
    """
    neutral = rig.neutral(betas=betas.expand(num_frames, -1))
    expressions = [_sample_expression(rig, rng, strength) for _ in range(num_frames)]
    gaze = rng.uniform(-0.3, 0.3, (num_frames, 2)) * [0.6, 1.0]
    jaw = rng.uniform(0.0, 0.35, num_frames) * (rng.random(num_frames) < 0.4)
    poses = {
        "neck_pose": rng.normal(0, 1, (num_frames, 3)) * [0.10, 0.18, 0.07],
        "jaw_pose": np.stack([jaw, 0 * jaw, 0 * jaw], axis=-1),
        "leye_pose": np.stack([gaze[:, 0], gaze[:, 1], 0 * jaw], axis=-1),
    }
    poses["reye_pose"] = poses["leye_pose"]
    moved = {name: torch.tensor(strength * value).to(betas) for name, value in poses.items()}
    still = {name: getattr(neutral, name) for name in ("global_orient", "transl")}
    return RigParams(betas=neutral.betas, expression=torch.cat(expressions), **moved, **still)


def _sample_expression(rig: HeadRig, rng: np.random.Generator, strength: float) -> Tensor:
    names = rng.choice(PLAYFUL, size=rng.integers(0, 4), replace=False)
    return rig.expression({str(name): strength * rng.uniform(0.2, 1.0) for name in names})


def pose_subject(subject: Subject, rig: HeadRig, rig_params: RigParams) -> list[PosedSubject]:
    """The person in every frame, moved by the rig."""
    motion = rig.joint_motion(rig_params)
    transforms = torch.einsum("vj,tjab->tvab", rig.lbs_weights, motion.transforms).double().numpy()
    transforms[..., 3] /= METRES_PER_CM
    offsets = torch.einsum("vce,te->tvc", rig.exprdirs, rig_params.expression)
    offsets = offsets + torch.einsum("vcp,tp->tvc", rig.posedirs, motion.pose_features)
    moved = subject.shape_offsets + offsets.double().numpy() / METRES_PER_CM
    return [subject.pose(moved[t], transforms[t]) for t in range(len(rig_params))]


def light_of(subject: Subject, *, seed: int = 0) -> Lighting:
    """The light of a person whose pictures are all taken in one."""
    return sample_lighting(np.random.default_rng([subject.identity.seed, seed, 3]))


def take_portraits(
    subject: Subject,
    rig: HeadRig,
    num_portraits: int,
    *,
    size: int,
    seed: int = 0,
    lighting: Lighting | None = None,
) -> Pictures:
    """Frontal pictures, in varied light unless one is given; the same seed, the same pictures."""
    rng = np.random.default_rng([subject.identity.seed, seed, 1])
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    rig_params = sample_motion(rig, betas, num_portraits, rng, strength=0.5)
    cameras = portrait_cameras(
        rng.uniform(-22, 22, num_portraits).tolist(),
        rng.uniform(-6, 10, num_portraits).tolist(),
        size=size,
    )
    lights = [lighting or sample_lighting(rng) for _ in range(num_portraits)]
    return _take(subject, rig, rig_params, cameras, lights)


def take_snapshots(
    subject: Subject,
    rig: HeadRig,
    num_portraits: int,
    *,
    size: int,
    seed: int = 0,
    lighting: Lighting | None = None,
) -> Pictures:
    """Portraits as photographs are, livelier than those of `take_portraits` and by any lens."""
    rng = np.random.default_rng([subject.identity.seed, seed, 6])
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    rig_params = sample_motion(rig, betas, num_portraits, rng, strength=0.8)
    cameras = snapshot_cameras(rng, num_portraits, size=size)
    lights = [lighting or sample_lighting(rng) for _ in range(num_portraits)]
    drawn = _take(subject, rig, rig_params, cameras, lights)
    return replace(drawn, images=np.stack([photograph(image, rng) for image in drawn.images]))


def take_views(
    subject: Subject,
    rig: HeadRig,
    num_views: int,
    *,
    size: int,
    seed: int = 0,
    lighting: Lighting | None = None,
) -> Pictures:
    """Pictures from all around, most from the front; every other one at rest. There may be none."""
    rng = np.random.default_rng([subject.identity.seed, seed, 2])
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    if not num_views:
        nowhere = Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 3, 3), size, size)
        images = np.zeros((0, size, size, 4), np.float32)
        return Pictures(images, rig.neutral(betas=betas.expand(0, -1)), nowhere)
    lively = sample_motion(rig, betas, num_views, rng, strength=1.0)
    rig_params = _rest_every_other(lively)
    # Two thirds in front, the last third behind, evenly spread with some jitter.
    front = np.linspace(-80, 80, num_views - num_views // 3)
    back = np.linspace(100, 260, num_views // 3)
    azimuths = rng.permutation(np.concatenate([front, back]) + rng.uniform(-10, 10, num_views))
    elevations = rng.uniform(-12, 25, num_views)
    cameras = portrait_cameras(azimuths.tolist(), elevations.tolist(), size=size)
    return _take(subject, rig, rig_params, cameras, [lighting or Lighting()] * num_views)


def _rest_every_other(rig_params: RigParams) -> RigParams:
    moves = (torch.arange(len(rig_params)) % 2)[:, None].to(rig_params.betas)
    poses = {name: moves * getattr(rig_params, name) for name in (*POSE_NAMES, "transl")}
    return RigParams(betas=rig_params.betas, expression=moves * rig_params.expression, **poses)


def _take(
    subject: Subject,
    rig: HeadRig,
    rig_params: RigParams,
    cameras: Cameras,
    lights: list[Lighting],
) -> Pictures:
    posed = pose_subject(subject, rig, rig_params)
    images = [
        render_frame(frame, cameras[i : i + 1], lighting=lights[i]) for i, frame in enumerate(posed)
    ]
    return Pictures(np.stack(images), rig_params, cameras)

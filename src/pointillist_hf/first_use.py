# SPDX-License-Identifier: Apache-2.0
"""Floor 6. The CPU kernels are compiled when they are first used, once on a machine: here, earlier.

numba lets one thread compile at a time, and whoever needs the same kernel waits for it. So a thread
can begin while the photograph is tracked, and nothing is compiled twice.
"""

from __future__ import annotations

import threading
import time

import torch

from .decoding.generation import generate_points
from .geometry.cameras import orbit_cameras
from .geometry.structures import Gaussians
from .pipeline_avatar import AvatarPipeline
from .rendering import rasterize
from .rendering.mesh import rasterize_mesh

SIDE = 16  # pixels


def warm_up(pipe: AvatarPipeline) -> float:
    """Runs the kernels that an avatar needs on next to nothing. Returns the seconds it took.

    Args:
        pipe: On the CPU; on another device there is nothing to compile.
    """
    start = time.perf_counter()
    if pipe.point_generator.device.type == "cpu":
        _decode(pipe)
        _draw(pipe)
    return time.perf_counter() - start


def warm_up_in_background(pipe: AvatarPipeline) -> threading.Thread:
    """The same in a thread that ends with the process."""
    thread = threading.Thread(target=warm_up, args=(pipe,), daemon=True, name="compilation")
    thread.start()
    return thread


@torch.no_grad()  # which holds for this thread alone
def _decode(pipe: AvatarPipeline) -> None:
    generator = pipe.point_generator
    context = torch.zeros(1, 1, generator.config.cross_attention_size, dtype=generator.dtype)
    options = {"grammar": pipe.config.grammar, "max_points": 1}
    if generator.config.binding_head == "anchored":
        options["face_anchors"] = pipe.rig.face_anchors(pipe.rig.neutral().betas)
    generate_points(generator, context, seeds=[0], **options)


@torch.no_grad()
def _draw(pipe: AvatarPipeline) -> None:
    rig, cameras = pipe.rig, orbit_cameras([0.0], width=SIDE, height=SIDE)
    place = rig.v_template[:1]
    splat = Gaussians(
        means=place,
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.01),
        opacities=torch.ones(1),
        colors=torch.ones(1, 3),
    )
    rasterize(splat, cameras, backend="cpu")
    rasterize_mesh(rig.v_template, rig.faces, cameras.viewmats[0], cameras.Ks[0], SIDE, SIDE)

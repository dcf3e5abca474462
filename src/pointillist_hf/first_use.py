# SPDX-License-Identifier: Apache-2.0
"""Floor 6. The CPU kernels are compiled when they are first used, once on a machine: here, earlier.

The large kernel, which decodes, is compiled in a process beside this one while weights are loaded
and the photograph is tracked (`kernels.beside`); those that draw and search, in a thread. numba
lets one thread compile at a time, and whoever needs the same kernel waits for it, so nothing is
compiled twice.
"""

from __future__ import annotations

import threading
import time

import torch

from .decoding.generation import generate_points
from .geometry.cameras import orbit_cameras
from .geometry.structures import Gaussians
from .kernels.compilation import is_kept
from .models.layout_features import append_layouts
from .pipeline_hub import HubPipeline
from .refinement.neighbors import nearest_points
from .rendering import rasterize
from .rendering.cpu.blending import blend_forward
from .rendering.mesh import rasterize_mesh

SIDE = 16  # pixels


def warm_up(pipe: HubPipeline) -> float:
    """Runs the kernels that an avatar needs on next to nothing. Returns the seconds it took.

    Args:
        pipe: On the CPU; on another device there is nothing to compile.
    """
    start = time.perf_counter()
    if pipe.point_generator.device.type == "cpu":
        _draw(pipe)  # while the other kernel is compiled beside
        _decode(pipe)
    return time.perf_counter() - start


def compile_drawing(pipe: HubPipeline) -> None:
    """Lets these kernels be compiled in a thread, if an avatar needs them and none is kept.

    The program ends when the thread does: nobody may pull LLVM's floor away from under it.
    """
    looks = pipe.config.complete_points or pipe.gaussian_decoder.config.image_inputs == "projected"
    is_here = pipe.point_generator.device.type == "cpu"
    if looks and is_here and not is_kept(blend_forward):
        threading.Thread(target=_draw, args=(pipe,), name="compilation").start()


@torch.no_grad()  # which holds for this thread alone
def _decode(pipe: HubPipeline) -> None:
    generator = pipe.point_generator
    context = torch.zeros(1, 1, generator.config.cross_attention_size, dtype=generator.dtype)
    options = {"grammar": pipe.config.grammar, "max_points": 1}
    if generator.config.binding_head == "anchored":
        anchors = pipe.rig.face_anchors(pipe.rig.neutral().betas)
        options["face_anchors"] = append_layouts(anchors, None, generator.config)
    generate_points(generator, context, seeds=[0], **options)


@torch.no_grad()
def _draw(pipe: HubPipeline) -> None:
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
    nearest_points(place, place, 1)

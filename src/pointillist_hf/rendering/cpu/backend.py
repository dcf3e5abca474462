# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting on the CPU: numba kernels, shared out to plain Python threads.

Python threads rather than numba's `parallel=True`, whose OpenMP layer kills a forked child and
whose workqueue layer aborts under concurrent callers. As many as `torch.get_num_threads()` work;
images and gradients have the same bits for any number.

Between the kernels there is numpy only: after each torch operation torch's OpenMP workers spin for
a while and would take the cores from these threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ...geometry.structures import Cameras, Gaussians
from ...kernels.compilation import report_compilation
from .binning import bin_into_tiles, sort_by_depth
from .blending import (
    NUM_SUMS,
    blend_backward,
    blend_forward,
    blend_forward_recording,
    reduce_sums,
)
from .projection import project_backward, project_forward

RANGE_STEP = 1024  # a multiple of every vector width: no splat moves between loop body and tail


class _View(NamedTuple):
    """One rendered camera, with what its backward pass needs."""

    camera: tuple[np.float32, ...]  # rotation, translation, fx, fy, cx, cy
    background: ndarray  # [3]
    means2d: ndarray  # [N, 2] pixels
    extents: ndarray  # [N, 2] pixels, 0 where the splat is not seen
    plan: tuple[ndarray, ...]  # of `bin_into_tiles`
    transmittance: ndarray  # [H, W]
    last: ndarray  # [H, W] place of the last blended splat in the list of the tile


def rasterize_cpu(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Tensor | None,
    screen_probe: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colors, alphas, means2d and radii from float32 records; see `rasterize`."""
    splats = (
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
    )
    if backgrounds is None:
        backgrounds = torch.zeros(len(cameras), 3)
    leaves = [*splats, backgrounds]
    if screen_probe is not None:
        leaves.append(screen_probe)
    records = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    return _RasterizeCpu.apply(*splats, backgrounds, screen_probe, cameras, records)


class _RasterizeCpu(torch.autograd.Function):
    """The loop over cameras, as one operation of autograd."""

    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Tensor | Cameras | bool | None) -> tuple[Tensor, ...]:
        *tensors, _, cameras, records = inputs
        width, height = cameras.width, cameras.height
        *splats, backgrounds = (_to_array(t) for t in tensors)
        images = np.empty((len(cameras), height, width, 3), np.float32)
        alphas = np.empty((len(cameras), height, width, 1), np.float32)
        means2d = np.empty((len(cameras), len(splats[0]), 2), np.float32)
        radii = np.empty((len(cameras), len(splats[0])), np.float32)
        views = []
        for index, background in enumerate(backgrounds):
            camera = _pack_camera(_to_array(cameras.viewmats[index]), _to_array(cameras.Ks[index]))
            view = _render_view(tuple(splats), camera, background, images[index], records)
            np.subtract(1, view.transmittance, out=alphas[index, ..., 0])
            np.ceil(np.maximum(*view.extents.T), out=radii[index])
            means2d[index] = np.where(radii[index, :, None] > 0, view.means2d, np.float32(0))
            if records:
                views.append(view)
        if records:
            ctx.save_for_backward(*tensors)
            ctx.views = views
            # Missing upstream gradients come as None: torch would fill zeros with its threads.
            ctx.set_materialize_grads(False)
        report_compilation()
        outputs = tuple(torch.from_numpy(array) for array in (images, alphas, means2d, radii))
        ctx.mark_non_differentiable(*outputs[2:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, d_colors: Tensor | None, d_alphas: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        *splats, backgrounds = (_to_array(t) for t in ctx.saved_tensors)
        gradients = [np.zeros_like(array) for array in (*splats, backgrounds)]
        shape = (len(ctx.views), *ctx.views[0].transmittance.shape) if ctx.views else (0, 1, 1)
        d_images = np.zeros((*shape, 3), np.float32) if d_colors is None else _to_array(d_colors)
        d_alphas = np.zeros((*shape, 1), np.float32) if d_alphas is None else _to_array(d_alphas)
        d_probe = None
        if ctx.needs_input_grad[6]:
            d_probe = torch.zeros(len(ctx.views), len(splats[0]), 2)
        for index, view in enumerate(ctx.views):
            d_alpha = np.ascontiguousarray(d_alphas[index, ..., 0])
            d_means2d = _add_gradients(view, tuple(splats), d_images[index], d_alpha, gradients)
            if d_probe is not None:
                seen = view.plan[1]
                d_probe[index].numpy()[seen] = d_means2d[seen]
            if ctx.needs_input_grad[5]:
                light = d_images[index] * view.transmittance[..., None]
                gradients[5][index] = light.sum(axis=(0, 1), dtype=np.float64)
        report_compilation()
        return (*(torch.from_numpy(gradient) for gradient in gradients), d_probe, None, None)


def _render_view(
    splats: tuple[ndarray, ...],
    camera: tuple[np.float32, ...],
    background: ndarray,
    image: ndarray,
    records: bool,
) -> _View:
    """Draws into `image` [H, W, 3]."""
    opacities, colors = splats[3:]
    height, width, _ = image.shape
    num_splats = len(opacities)
    means2d, extents = np.empty((num_splats, 2), np.float32), np.empty((num_splats, 2), np.float32)
    conics, depths = np.empty((num_splats, 3), np.float32), np.empty(num_splats, np.float32)
    projection = (means2d, conics, depths, extents)
    _run_ranges(
        num_splats,
        lambda start, stop: project_forward(splats, camera, width, height, start, stop, projection),
    )
    order = sort_by_depth(depths, extents)
    plan = bin_into_tiles(projection, opacities, order, width, height)
    transmittance = np.empty((height, width), np.float32)
    last = np.empty((height, width) if records else (0, 0), np.int32)
    blend = blend_forward_recording if records else blend_forward
    _run_tiles(
        plan,
        lambda tiles: blend(
            plan, colors, background, width, height, tiles, image, transmittance, last
        ),
    )
    return _View(camera, background, means2d, extents, plan, transmittance, last)


def _add_gradients(
    view: _View,
    splats: tuple[ndarray, ...],
    d_image: ndarray,
    d_alpha: ndarray,
    gradients: list[ndarray],
) -> ndarray:
    """Adds what one view gives to the gradients by means, quats, scales, opacities, colors.

    Returns:
        The gradient by the screen positions; rows of unseen splats hold anything. [N, 2]
    """
    colors = splats[4]
    d_means, d_quats, d_scales, d_opacities, d_colors, _ = gradients
    _, order, _, tile_splats, _, _ = view.plan
    height, width = view.transmittance.shape
    sums = np.empty((len(tile_splats), NUM_SUMS), np.float32)
    _run_tiles(
        view.plan,
        lambda tiles: blend_backward(
            view.plan, colors, view.background, width, height, tiles,
            view.transmittance, view.last, d_image, d_alpha, sums,
        ),
    )  # fmt: skip
    # Rows of unseen splats stay unwritten, and the projection does not read them.
    projected = np.empty((len(colors), 2), np.float32), np.empty((len(colors), 3), np.float32)
    _run_ranges(
        len(order),
        lambda start, stop: reduce_sums(
            view.plan, sums, start, stop, projected, (d_opacities, d_colors)
        ),
    )
    _run_ranges(
        len(colors),
        lambda start, stop: project_backward(
            splats, view.camera, width, height, start, stop,
            view.extents, projected, (d_means, d_quats, d_scales),
        ),
    )  # fmt: skip
    return projected[0]


def _to_array(tensor: Tensor) -> ndarray:
    """The tensor's own memory where it is contiguous: the kernels take no strides."""
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _pack_camera(viewmat: ndarray, K: ndarray) -> tuple[np.float32, ...]:
    """Rotation row by row, translation, focal lengths, principal point."""
    return (*viewmat[:3, :3].ravel(), *viewmat[:3, 3], K[0, 0], K[1, 1], K[0, 2], K[1, 2])


# Threads ------------------------------------------------------------------------------------------


@cache
def _thread_pool(process_id: int, num_threads: int) -> ThreadPoolExecutor:
    """Keyed by process: the threads of a pool do not survive a fork."""
    return ThreadPoolExecutor(num_threads, f"rasterize-{process_id}")


def _run_all(tasks: list[Callable[[], None]]) -> None:
    """Runs the first task here and the others beside it."""
    first, *others = tasks
    futures = []
    if others:
        pool = _thread_pool(os.getpid(), torch.get_num_threads() - 1)
        futures = [pool.submit(task) for task in others]
    first()
    for future in futures:
        future.result()


def _run_tiles(plan: tuple[ndarray, ...], kernel: Callable[[ndarray], None]) -> None:
    """Deals the tiles out, heaviest first."""
    order = np.argsort(-np.diff(plan[2]), kind="stable")
    num_tasks = min(torch.get_num_threads(), len(order))
    hands = [np.ascontiguousarray(order[start::num_tasks]) for start in range(num_tasks)]
    _run_all([lambda tiles=tiles: kernel(tiles) for tiles in hands])


def _run_ranges(count: int, kernel: Callable[[int, int], None]) -> None:
    """Cuts 0..count into one range per thread, at multiples of RANGE_STEP."""
    step = -(-count // (RANGE_STEP * torch.get_num_threads())) * RANGE_STEP
    starts = range(0, count, step) if count else [0]
    _run_all([lambda i=i: kernel(i, min(i + step, count)) for i in starts])

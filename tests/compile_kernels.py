# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels into numba's cache, before tests need them.

python tests/compile_kernels.py rendering flat depth anchored

The last three decode tokens, each with a head of the generator, and take most of the time. Test
processes that find the cache empty would compile all of them, each for itself.
"""

import argparse

import torch
from splat_scenes import build_cameras, build_cloud
from tiny_generators import CONTEXT, HEADS, build_anchored, build_generator, random_heads

from pointillist_hf.decoding.generation import WEIGHT_FORMATS, generate_points
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.refinement.neighbors import nearest_points
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.mesh import rasterize_mesh


def compile_rendering():
    """Splats forward alone, forward with a record, and backward; meshes; nearest points."""
    cloud, cameras = build_cloud(), build_cameras()
    rasterize(cloud, cameras, backend="cpu")
    leaves = {name: value.clone().requires_grad_() for name, value in vars(cloud).items()}
    colors, alphas, *_ = rasterize(Gaussians(**leaves), cameras, backend="cpu")
    (colors.sum() + alphas.sum()).backward()
    viewmat, K = cameras.viewmats[0], cameras.Ks[0]
    rasterize_mesh(cloud.means, [[0, 1, 2]], viewmat, K, cameras.width, cameras.height)
    nearest_points(cloud.means, cloud.means, 1)


@torch.no_grad()
def compile_decoding(head):
    """With float32 weights, with weights that bfloat16 holds, and rounded."""
    options = {"face_anchors": random_heads(1)} if head == "anchored" else {}
    model = build_generator(**HEADS[head]) if head in HEADS else build_anchored()
    context = torch.randn(1, 2, CONTEXT)
    for engine in WEIGHT_FORMATS:
        generate_points(model, context, max_points=1, engine=engine, **options)
    stored = model.bfloat16().float()
    generate_points(stored, context, max_points=1, engine="compiled", **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compiles kernels into numba's cache.")
    parser.add_argument("kernels", nargs="+", choices=["rendering", *HEADS, "anchored"])
    for name in parser.parse_args().kernels:
        compile_rendering() if name == "rendering" else compile_decoding(name)

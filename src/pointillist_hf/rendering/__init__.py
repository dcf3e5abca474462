# SPDX-License-Identifier: Apache-2.0
"""Differentiable Gaussian splatting on CPU and GPU, and a triangle rasteriser for ground truth."""

from .rasterize import RasterizationMeta, rasterize

__all__ = ["RasterizationMeta", "rasterize"]

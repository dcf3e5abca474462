# SPDX-License-Identifier: Apache-2.0
"""The numba kernels that order projected splats by depth and deal them out to tiles.

Constants are repeated from `blending`, because numba's cache notices no edits in another file.

Legend of the short names:
    W, H           image size, pixels
    power          log2 of alpha: a dx^2 + linear dx + constant along an image row
"""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from ...kernels.compilation import compile_kernel

F = np.float32
ZERO, ONE, HALF = F(0), F(1), F(0.5)
LOG2_E, LOG2_MIN_ALPHA = F(math.log2(math.e)), F(math.log2(1 / 255))
TILE_W, TILE_H = 32, 16


@compile_kernel()
def sort_by_depth(depths: ndarray, extents: ndarray) -> ndarray:
    """Indices of the visible splats, near to far, ties by index: a radix sort of the float bits."""
    bits = depths.view(np.uint32)
    keys, order = np.empty(len(bits), np.uint32), np.empty(len(bits), np.int32)
    count = 0
    for i in range(len(bits)):
        if extents[i, 0] > ZERO:
            keys[count], order[count] = bits[i], i
            count += 1
    other_keys, other_order = np.empty(count, np.uint32), np.empty(count, np.int32)
    ends = np.empty(2049, np.int64)
    for digit in range(3):
        shift = np.uint32(11 * digit)
        ends[:] = 0
        for i in range(count):
            ends[((keys[i] >> shift) & np.uint32(2047)) + 1] += 1
        for i in range(2048):
            ends[i + 1] += ends[i]
        for i in range(count):
            bucket = (keys[i] >> shift) & np.uint32(2047)
            place = ends[bucket]
            ends[bucket] = place + 1
            other_keys[place], other_order[place] = keys[i], order[i]
        keys, other_keys = other_keys, keys
        order, other_order = other_order, order
    return order[:count].copy()


@compile_kernel()
def bin_into_tiles(
    projection: tuple, opacities: ndarray, order: ndarray, W: int, H: int
) -> tuple[ndarray, ...]:
    """Which splats touch which tile. M visible splats in depth order, P (splat, tile) pairs.

    Returns:
        records [M, 8]: centre, power's quadratic form (3), log2 opacity, the same above the cut,
            opacity.
        order [M]: as it came.
        tile_starts [tiles + 1], tile_splats [P]: visible splats of each tile, near to far.
        pair_slots [P]: row of the pair in the scratch of the backward pass, where the rows of
            one splat lie together: splat_starts [M + 1].
    """
    means2d, conics, _, extents = projection
    num_visible, tiles_x, tiles_y = len(order), -(-W // TILE_W), -(-H // TILE_H)
    records, boxes = np.empty((num_visible, 8), np.float32), np.empty((num_visible, 4), np.int32)
    tile_starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    splat_starts = np.zeros(num_visible + 1, np.int64)
    for i in range(num_visible):
        n = order[i]
        mx, my = means2d[n, 0], means2d[n, 1]
        ex, ey = extents[n, 0] + F(1e-3), extents[n, 1] + F(1e-3)
        power = F(math.log2(opacities[n]))
        records[i, 0], records[i, 1] = mx, my
        records[i, 2], records[i, 3] = -HALF * LOG2_E * conics[n, 0], -LOG2_E * conics[n, 1]
        records[i, 4], records[i, 5] = -HALF * LOG2_E * conics[n, 2], power
        records[i, 6], records[i, 7] = power - LOG2_MIN_ALPHA, opacities[n]
        # Clamped before the conversion: an int made from a float out of range is undefined.
        x0, x1 = math.ceil(max(mx - ex - HALF, ZERO)), math.floor(min(mx + ex - HALF, F(W - 1)))
        y0, y1 = math.ceil(max(my - ey - HALF, ZERO)), math.floor(min(my + ey - HALF, F(H - 1)))
        if x0 <= x1 and y0 <= y1:
            left, right, top, bottom = x0 // TILE_W, x1 // TILE_W, y0 // TILE_H, y1 // TILE_H
        else:
            left, right, top, bottom = 1, 0, 1, 0
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = left, right, top, bottom
        for ty in range(top, bottom + 1):
            for tx in range(left, right + 1):
                tile_starts[ty * tiles_x + tx + 1] += 1
        splat_starts[i + 1] = splat_starts[i] + (right - left + 1) * (bottom - top + 1)
    for tile in range(tiles_x * tiles_y):
        tile_starts[tile + 1] += tile_starts[tile]
    tile_splats = np.empty(tile_starts[-1], np.int32)
    pair_slots = np.empty(tile_starts[-1], np.int64)
    cursors = tile_starts[:-1].copy()
    for i in range(num_visible):
        slot = splat_starts[i]
        for ty in range(boxes[i, 2], boxes[i, 3] + 1):
            for tx in range(boxes[i, 0], boxes[i, 1] + 1):
                place = cursors[ty * tiles_x + tx]
                cursors[ty * tiles_x + tx] = place + 1
                tile_splats[place], pair_slots[place] = i, slot
                slot += 1
    return records, order, tile_starts, tile_splats, pair_slots, splat_starts

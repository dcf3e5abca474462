# SPDX-License-Identifier: Apache-2.0
"""The numba kernels that blend the splats of each tile, and their gradients, float32.

Each works on a list of tiles or a range of splats, so that plain Python threads can share the work;
none writes where another one does, so results have the same bits for any number of threads. The
kernels share one module because numba's cache notices no edits in another file.

Legend of the short names:
    W, H           image size, pixels; X, Y a tile's first pixel
    T              transmittance; negative once a pixel is finished
    power          log2 of alpha: a dx^2 + linear dx + constant along an image row
    d_*            derivative of the loss by *
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy import ndarray

from ...kernels.compilation import compile_kernel
from ...kernels.exp2 import exp2

F, U = np.float32, np.uint64
ZERO, ONE, TWO, HALF = F(0), F(1), F(2), F(0.5)

MAX_ALPHA, MIN_TRANSMITTANCE = F(0.999), F(1e-4)
LOG2_E, LOG2_MIN_ALPHA = F(math.log2(math.e)), F(math.log2(1 / 255))

TILE_W, TILE_H, LANES = 32, 16, 16
ROW = TILE_W + LANES  # a chunk of lanes may start at a tile's last pixel
PLANE = TILE_H * ROW
NUM_SUMS = 9  # per (splat, tile): six moments of -dL/dsigma, then three colour sums

# LLVM emits full-width vector code only for constant trip counts, one float32 workspace at constant
# plane offsets (no alias checks), selects in place of branches, float32 constants, and UNSIGNED
# indices (a signed one may be negative and is wrapped at run time).
uLANES, uROW, uTILE_H, uDY = U(LANES), U(ROW), U(TILE_H), U(2 * TILE_H)
u1, u2, u3, u4, u5 = U(PLANE), U(2 * PLANE), U(3 * PLANE), U(4 * PLANE), U(5 * PLANE)

FAST_MATH = ("contract", "nnan", "ninf", "nsz", "arcp", "reassoc", "afn")


@njit(inline="always")
def _find_chunks(
    records: ndarray, i: int, X: float, Y: float, live: tuple, row_terms: ndarray, rows: tuple
) -> tuple:
    """Chunks of lanes that cover splat i in the tile at (X, Y), each as 256 * row + column.

    `row_terms` gets, per row, the linear and the constant coefficient of the power as a polynomial
    of dx, and dy. The loops are free of branches: every row writes two chunks, and the next row
    overwrites those it does not need.
    """
    live_starts, live_ends = live
    row_starts, row_counts, chunks = rows
    a, b, c = records[i, 2], records[i, 3], records[i, 4]
    log2_opacity, above_cut = records[i, 5], records[i, 6]
    mx, my = records[i, 0] - X, records[i, 1] - Y
    half_width = F(-0.5) / a
    for y in range(uTILE_H):
        dy = F(np.int32(y)) + HALF - my
        linear, constant = b * dy, c * dy * dy
        discriminant = linear * linear - F(4) * a * (constant + above_cut)
        root = math.sqrt(max(discriminant, ZERO))
        left = mx - F(0.501) + (linear - root) * half_width
        right = mx - F(0.499) + (linear + root) * half_width
        left, right = min(max(left, F(-1)), F(TILE_W + 1)), min(max(right, F(-1)), F(TILE_W + 1))
        start = max(np.int32(np.int32(left + TWO) - np.int32(1)), live_starts[y])
        end = min(np.int32(np.int32(right + TWO) - np.int32(1)), live_ends[y])
        count = np.int32((end - start + np.int32(LANES - 1)) >> np.int32(4))
        row_starts[y] = start
        row_counts[y] = count if (end > start) & (discriminant > ZERO) else np.int32(0)
        row_terms[y], row_terms[y + uTILE_H] = linear, constant + log2_opacity
        row_terms[y + uDY] = dy
    num_chunks = 0
    for y in range(TILE_H):
        chunk = y * 256 + row_starts[y]
        chunks[num_chunks], chunks[num_chunks + 1] = chunk, chunk + LANES
        num_chunks += row_counts[y]
    return num_chunks, mx


@njit(inline="always")
def _drop_finished_ends(planes: ndarray, live: tuple, height: int) -> int:
    """Shortens the live part of each row by the finished pixels at its ends; rows left with any."""
    num_live = 0
    for y in range(height):
        start, end = live[0][y], live[1][y]
        while start < end and planes[y * ROW + start] <= ZERO:
            start += 1
        while end > start and planes[y * ROW + end - 1] <= ZERO:
            end -= 1
        live[0][y], live[1][y] = start, end
        num_live += end > start
    return num_live


@njit(inline="always")
def _store_tile(
    planes: ndarray,
    background: ndarray,
    X: int,
    Y: int,
    width: int,
    height: int,
    image: ndarray,
    transmittance: ndarray,
) -> None:
    """Writes a blended tile into the picture, over the background."""
    for y in range(height):
        for x in range(width):
            at = y * ROW + x
            T = abs(planes[at])
            transmittance[Y + y, X + x] = T
            for c in range(3):
                image[Y + y, X + x, c] = planes[(1 + c) * PLANE + at] + T * background[c]


def _build_blend(record_last: bool) -> Callable[..., None]:
    """The forward kernel, which also writes what only the backward pass needs, or does not."""
    num_planes = 5 if record_last else 4  # T, three colours, last splat

    @compile_kernel(fastmath=FAST_MATH)
    def blend(
        plan: tuple,
        colors: ndarray,
        background: ndarray,
        W: int,
        H: int,
        tiles: ndarray,
        image: ndarray,
        transmittance: ndarray,
        last: ndarray,
    ) -> None:
        records, order, tile_starts, tile_splats, _, _ = plan
        tiles_x = (W + TILE_W - 1) // TILE_W
        planes, row_terms = np.empty(num_planes * PLANE, np.float32), np.empty(48, np.float32)
        live = np.zeros(TILE_H, np.int32), np.zeros(TILE_H, np.int32)
        chunks = np.empty(2 * TILE_H + 2, np.int32)
        rows = np.empty(TILE_H, np.int32), np.empty(TILE_H, np.int32), chunks
        for tile in tiles:
            X, Y = (tile % tiles_x) * TILE_W, (tile // tiles_x) * TILE_H
            width, height = min(TILE_W, W - X), min(TILE_H, H - Y)
            planes[:PLANE], planes[PLANE : 4 * PLANE] = ONE, ZERO
            if record_last:
                planes[4 * PLANE :] = F(-1)
            for y in range(TILE_H):
                live[0][y], live[1][y] = 0, width if y < height else 0
            first = tile_starts[tile]
            for k in range(tile_starts[tile + 1] - first):
                i = tile_splats[first + k]
                n = order[i]
                num_chunks, mx = _find_chunks(records, i, F(X), F(Y), live, row_terms, rows)
                a, k_float = records[i, 2], F(k)
                c0, c1, c2 = colors[n, 0], colors[n, 1], colors[n, 2]
                for j in range(num_chunks):
                    y, x = U(chunks[j] >> 8), U(chunks[j] & 255)
                    at = y * uROW + x
                    linear, constant = row_terms[y], row_terms[y + uTILE_H]
                    dx0 = F(np.int32(x)) + HALF - mx
                    for lane in range(uLANES):
                        dx = dx0 + F(np.int32(lane))
                        power = (a * dx + linear) * dx + constant
                        alpha = min(exp2(power), MAX_ALPHA)
                        T = planes[at + lane]
                        hit = (power >= LOG2_MIN_ALPHA) & (T > ZERO)
                        weight = alpha * T if hit else ZERO
                        next_T = T - weight
                        stop = hit & (next_T <= MIN_TRANSMITTANCE)
                        weight = ZERO if stop else weight
                        planes[at + lane] = -T if stop else next_T
                        planes[u1 + at + lane] += weight * c0
                        planes[u2 + at + lane] += weight * c1
                        planes[u3 + at + lane] += weight * c2
                        if record_last:
                            blended = hit & (not stop)
                            planes[u4 + at + lane] = k_float if blended else planes[u4 + at + lane]
                if (k & 31) != 31:
                    continue
                if _drop_finished_ends(planes, live, height) == 0:
                    break
            _store_tile(planes, background, X, Y, width, height, image, transmittance)
            if record_last:
                for y in range(height):
                    for x in range(width):
                        last[Y + y, X + x] = np.int32(planes[4 * PLANE + y * ROW + x])

    return blend


blend_forward, blend_forward_recording = _build_blend(False), _build_blend(True)


@njit(inline="always")
def _load_tile(
    planes: ndarray,
    background: ndarray,
    tile_box: tuple,
    results: tuple,
    upstream: tuple,
) -> int:
    """Fills the planes of the backward pass; the farthest splat that any pixel blended."""
    X, Y, width, height = tile_box
    transmittance, last = results
    d_image, d_alpha = upstream
    planes[:PLANE], planes[PLANE : 2 * PLANE] = ONE, ZERO
    planes[2 * PLANE : 3 * PLANE], planes[3 * PLANE :] = F(-1), ZERO
    farthest = -1
    for y in range(height):
        for x in range(width):
            at = y * ROW + x
            T, k_last = transmittance[Y + y, X + x], last[Y + y, X + x]
            d_T = -d_alpha[Y + y, X + x]
            for c in range(3):
                d_color = d_image[Y + y, X + x, c]
                planes[(3 + c) * PLANE + at] = d_color
                d_T += background[c] * d_color
            planes[at], planes[PLANE + at], planes[2 * PLANE + at] = T, T * d_T, F(k_last)
            farthest = max(farthest, k_last)
    return farthest


@njit(inline="always")
def _find_live_rows(planes: ndarray, soon: float, live: tuple, width: int, height: int) -> None:
    """Spans each row from its first to its last pixel that has blended splat `soon` or a later."""
    for y in range(height):
        start, end = np.int32(0), np.int32(width)
        while start < end and planes[2 * PLANE + y * ROW + start] < soon:
            start += 1
        while end > start and planes[2 * PLANE + y * ROW + end - 1] < soon:
            end -= 1
        live[0][y], live[1][y] = start, end


@njit(inline="always")
def _add_lanes(lane_sums: ndarray, sums: ndarray, slot: int) -> None:
    """Writes the row `slot` of the sums."""
    for term in range(NUM_SUMS):
        total = ZERO
        for lane in range(LANES):
            total += lane_sums[term * LANES + lane]
        sums[slot, term] = total


@compile_kernel(fastmath=FAST_MATH)
def blend_backward(
    plan: tuple,
    colors: ndarray,
    background: ndarray,
    W: int,
    H: int,
    tiles: ndarray,
    transmittance: ndarray,
    last: ndarray,
    d_image: ndarray,
    d_alpha: ndarray,
    sums: ndarray,
) -> None:
    """Fills the rows of `sums` [P, NUM_SUMS] that belong to the (splat, tile) pairs of `tiles`.

    Walks from far to near. T is recovered by division; `behind` is what the loss would gain per
    unit of light let through to everything behind the splat.
    """
    records, order, tile_starts, tile_splats, pair_slots, _ = plan
    tiles_x = (W + TILE_W - 1) // TILE_W
    planes = np.empty(6 * PLANE, np.float32)  # T, behind, last splat, d_image
    lane_sums, row_terms = np.empty(NUM_SUMS * LANES, np.float32), np.empty(48, np.float32)
    live = np.zeros(TILE_H, np.int32), np.zeros(TILE_H, np.int32)
    chunks = np.empty(2 * TILE_H + 2, np.int32)
    rows = np.empty(TILE_H, np.int32), np.empty(TILE_H, np.int32), chunks
    results, upstream = (transmittance, last), (d_image, d_alpha)
    for tile in tiles:
        X, Y = (tile % tiles_x) * TILE_W, (tile // tiles_x) * TILE_H
        width, height = min(TILE_W, W - X), min(TILE_H, H - Y)
        first = tile_starts[tile]
        live[0][:], live[1][:] = 0, 0
        tile_box = (X, Y, width, height)
        farthest = _load_tile(planes, background, tile_box, results, upstream)
        for k in range(farthest + 1, tile_starts[tile + 1] - first):
            sums[pair_slots[first + k]] = ZERO
        for k in range(farthest, -1, -1):
            i = tile_splats[first + k]
            n = order[i]
            if ((farthest - k) & 31) == 0:
                # A pixel takes part from its last splat on, so its row grows live ahead of that.
                _find_live_rows(planes, F(k - 31), live, width, height)
            num_chunks, mx = _find_chunks(records, i, F(X), F(Y), live, row_terms, rows)
            a, k_float = records[i, 2], F(k)
            c0, c1, c2 = colors[n, 0], colors[n, 1], colors[n, 2]
            lane_sums[:] = ZERO
            for j in range(num_chunks):
                y, x = U(chunks[j] >> 8), U(chunks[j] & 255)
                at = y * uROW + x
                linear, constant = row_terms[y], row_terms[y + uTILE_H]
                dy, dx0 = row_terms[y + uDY], F(np.int32(x)) + HALF - mx
                for lane in range(uLANES):
                    dx = dx0 + F(np.int32(lane))
                    power = (a * dx + linear) * dx + constant
                    unclamped = exp2(power)
                    alpha = min(unclamped, MAX_ALPHA)
                    hit = (power >= LOG2_MIN_ALPHA) & (planes[u2 + at + lane] >= k_float)
                    inverse = ONE / (ONE - alpha)
                    T, behind = planes[at + lane], planes[u1 + at + lane]
                    T = T * inverse if hit else T
                    weight = alpha * T if hit else ZERO
                    # The colour sums come first: kept for last, they cost 15 % in registers.
                    g0, g1 = planes[u3 + at + lane], planes[u4 + at + lane]
                    g2 = planes[u5 + at + lane]
                    lane_sums[uLANES * U(6) + lane] += weight * g0
                    lane_sums[uLANES * U(7) + lane] += weight * g1
                    lane_sums[uLANES * U(8) + lane] += weight * g2
                    d_weight = c0 * g0 + c1 * g1 + c2 * g2
                    d_alpha_ = T * d_weight - inverse * behind
                    planes[at + lane] = T
                    planes[u1 + at + lane] = behind + weight * d_weight
                    q = alpha * d_alpha_ if hit & (unclamped <= MAX_ALPHA) else ZERO
                    qx, qy = q * dx, q * dy
                    lane_sums[lane] += q
                    lane_sums[uLANES + lane] += qx
                    lane_sums[uLANES * U(2) + lane] += qy
                    lane_sums[uLANES * U(3) + lane] += qx * dx
                    lane_sums[uLANES * U(4) + lane] += qx * dy
                    lane_sums[uLANES * U(5) + lane] += qy * dy
            _add_lanes(lane_sums, sums, pair_slots[first + k])


@compile_kernel(fastmath=FAST_MATH)
def reduce_sums(
    plan: tuple, sums: ndarray, start: int, stop: int, upstream: tuple, gradients: tuple
) -> None:
    """Adds up the tiles of the visible splats start..stop.

    Fills d_means2d [N,2] and d_conics [N,3]; adds to d_opacities [N] and d_colors [N,3].
    """
    records, order, _, _, _, splat_starts = plan
    d_means2d, d_conics = upstream
    d_opacities, d_colors = gradients
    total = np.empty(NUM_SUMS, np.float32)
    for i in range(start, stop):
        total[:] = ZERO
        for slot in range(splat_starts[i], splat_starts[i + 1]):
            for term in range(NUM_SUMS):
                total[term] += sums[slot, term]
        n = order[i]
        A, B, C = (
            TWO * records[i, 2] / -LOG2_E,
            records[i, 3] / -LOG2_E,
            TWO * records[i, 4] / -LOG2_E,
        )
        d_means2d[n, 0], d_means2d[n, 1] = A * total[1] + B * total[2], B * total[1] + C * total[2]
        d_conics[n, 0], d_conics[n, 1], d_conics[n, 2] = (
            -HALF * total[3],
            -total[4],
            -HALF * total[5],
        )
        d_opacities[n] += total[0] / records[i, 7]
        for c in range(3):
            d_colors[n, c] += total[6 + c]

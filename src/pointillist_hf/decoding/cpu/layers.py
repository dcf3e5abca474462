# SPDX-License-Identifier: Apache-2.0
"""The layers of the large transformer in the decoding kernels, one position at a time.

Threads share out the rows of each matrix and the heads of each attention, and wait for each other
before one reads what another has written. No sum is split between threads, so results have the same
bits for any number of them, and a row of a batch has the bits that it has alone.

The letters of shapes (B, D, ...) stand in `records`. numba's cache of `points` notices no
edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...kernels.compilation import compile_part
from ...kernels.exp2 import exp2
from .arithmetic import (
    F32,
    FAST_MATH,
    LANES,
    LOG2_E,
    ONE,
    START,
    ZERO,
    U,
    is_rounded,
    pad,
    share,
    share_rows,
    wait,
)
from .attention import attend, join_chunks, put
from .products import add_up, sum_columns, sum_columns_2, sum_columns_4
from .records import CHUNK, Memory, Rows, Scratch, Sizes, Weights, Worker
from .rounding import BLOCK, round_blocks

# Matrices of a layer, as `weights` orders them.
CROSS_QUERY, CROSS_OUT, QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(9)
NUM_MATRICES = 9
# What a product does with what is there.
SET, ADD, SWIGLU = map(np.int64, range(3))


@compile_part(fastmath=FAST_MATH)
def normalize(
    x: ndarray, weight: ndarray, first: int, out: ndarray, D: int, eps: float, b: int
) -> None:
    """RMSNorm of a row's state, which is D wide; the weights start at `first`."""
    width, at = U(D), U(b * D)
    for k in range(width):
        out[at + k] = x[at + k] * x[at + k]
    factor = ONE / np.sqrt(add_up(out, b * D, D) / F32(D) + F32(eps))
    for k in range(width):
        out[at + k] = x[at + k] * factor * weight[U(first) + k]


@compile_part(fastmath=FAST_MATH)
def _gate(gate: float, up: float) -> float:
    """The SiLU of a number times another one."""
    small = exp2(-abs(gate) * LOG2_E)
    return gate * up * ((ONE if gate >= ZERO else small) / (ONE + small))


@compile_part()
def _put(sums: tuple, scales: tuple, y: tuple, low: int, high: int, how: int) -> None:
    """What some lanes have summed, to where it goes. Each array comes with its offset."""
    for lane in range(U(low), U(high)):
        value = scales[0][U(scales[1]) + lane] * sums[0][U(sums[1]) + lane]
        at = U(y[1]) + lane
        if how == SET:
            y[0][at] = value
        elif how == ADD:
            y[0][at] += value
        else:
            y[0][at] = _gate(y[0][at], value)


@compile_part()
def round_states(worker: Worker, weights: Weights, x: ndarray, size: int) -> None:
    """Rounds the states of the live sequences if that is how the matrices want them. [B size]"""
    if is_rounded(weights.matrices):
        for b in worker.live:
            round_blocks(x, b * size, size, worker.rounded, b * _pad_blocks(size))


@compile_part()
def _pad_blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


@compile_part()
def _sum_group(worker: Worker, matrices: ndarray, start: int, x: ndarray, size: int, n: int) -> int:
    """A group of rows times the states of the live sequences from the n-th on: of how many."""
    live, rounded, sums = worker.live, worker.rounded, worker.sums
    step = _pad_blocks(size) if is_rounded(matrices) else size
    left, b0 = len(live) - n, live[n] * step
    # The rows are read and widened once for four sequences.
    if left >= 4:
        b1, b2, b3 = live[n + 1] * step, live[n + 2] * step, live[n + 3] * step
        sum_columns_4(matrices, start, x, rounded, (b0, b1, b2, b3), size, sums, 0)
        return 4
    if left >= 2:
        sum_columns_2(matrices, start, x, rounded, (b0, live[n + 1] * step), size, sums, 0)
        return 2
    sum_columns(matrices, start, x, rounded, b0, size, sums, 0)
    return 1


@compile_part()
def multiply(
    worker: Worker, weights: Weights, which: int, x: ndarray, size: int, y: ndarray, places: tuple,
    how: int,
) -> None:  # fmt: skip
    """Some rows of a matrix times the states of the live sequences.

    Args:
        worker: Who calls.
        weights: The network.
        which: Of all matrices.
        x: States; `round_states` must have seen them. [B size]
        size: Elements of a state.
        y: Gets the results.
        places: First row, and one past the last; where y starts, distance of the sequences in it.
        how: SET what is there, ADD to it, or take it for the gate of SWIGLU.
    """
    first, last, offset, step = places
    live, sums = worker.live, worker.sums
    start, matrices = weights.starts[which], weights.matrices
    for group in range(first // LANES * LANES, last, LANES):
        low, high = max(first - group, 0), min(last - group, LANES)
        scales = weights.scales, weights.first_scales[which] + group
        n = START
        while n < len(live):
            count = _sum_group(worker, matrices, start + group * pad(size), x, size, n)
            for m in range(count):
                place = y, offset + live[n + m] * step + group
                if high - low == LANES:  # a loop whose length is known is quicker
                    _put((sums, m * LANES), scales, place, 0, LANES, how)
                else:
                    _put((sums, m * LANES), scales, place, low, high, how)
            n += count


@compile_part(fastmath=FAST_MATH)
def _rotate(
    states: ndarray, at: int, cosines: ndarray, sines: ndarray, turn: int, half: int
) -> None:
    """Rotary position embedding of one head, in place."""
    for k in range(U(half)):
        i, j = U(at) + k, U(at + half) + k
        first, second, cos, sin = states[i], states[j], cosines[U(turn) + k], sines[U(turn) + k]
        states[i] = first * cos - second * sin
        states[j] = second * cos + first * sin


@compile_part(is_inlined=True)
def _project_and_store(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    layer: int, moment: tuple,
) -> None:  # fmt: skip
    """Queries, keys and values of the thread's heads; the last two go into the ring."""
    D, H, P = sizes.D, sizes.H, sizes.P
    step, place = moment
    first, last = share(3 * H, worker.thread, worker.num_threads)
    for unit in range(first, last):
        which, h = unit // H, unit % H
        heads = h * P, (h + 1) * P, which * D, 3 * D
        matrix = layer * NUM_MATRICES + QUERY + which
        multiply(worker, weights, matrix, worker.own, D, scratch.projected, heads, SET)
        for b in worker.live:
            at = (b * 3 + which) * D + h * P
            if which < 2:
                _rotate(scratch.projected, at, rows.cosines, rows.sines, step * (P // 2), P // 2)
            if which:
                chunk = (layer * sizes.B + b) * (sizes.W // CHUNK) + place // CHUNK
                block = chunk * H + h, place % CHUNK
                put(scratch.projected, at, sizes, memory.own, block, which == 2)


@compile_part()
def feed_forward(
    worker: Worker, weights: Weights, scratch: Scratch, first_matrix: int, D: int, F: int
) -> None:
    """The gated network on the thread's normalised states, added to the hidden ones.

    Its three matrices follow each other: gate, up, down.
    """
    own, gated = worker.own, scratch.gated
    first, last = share_rows(START, F, worker.thread, worker.num_threads)
    places = first, last, START, F
    round_states(worker, weights, own, D)
    multiply(worker, weights, first_matrix, own, D, gated, places, SET)
    multiply(worker, weights, first_matrix + 1, own, D, gated, places, SWIGLU)
    wait(scratch.barrier, worker.num_threads)
    first, last = share_rows(START, D, worker.thread, worker.num_threads)
    down, places = first_matrix + 2, (first, last, START, D)
    round_states(worker, weights, gated, F)
    multiply(worker, weights, down, gated, F, scratch.hidden, places, ADD)


@compile_part(is_inlined=True)
def transform(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    step: int, position: int,
) -> None:  # fmt: skip
    """All layers on the hidden states of the live rows, in place, at one position."""
    D, live, norms = sizes.D, worker.live, weights.norms
    own, projected, hidden = worker.own, scratch.projected, scratch.hidden
    first, last = share_rows(START, D, worker.thread, worker.num_threads)
    queries, sums = (first, last, START, 3 * D), (first, last, START, D)
    for b in live:
        worker.seen[b] = min(position + 1, sizes.window)
    for layer in range(sizes.layers):
        base = layer * NUM_MATRICES
        for b in live:
            normalize(hidden, norms, 3 * layer * D, own, D, sizes.eps, b)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + CROSS_QUERY, own, D, projected, queries, SET)
        wait(scratch.barrier, worker.num_threads)
        lengths = memory.cross_lengths
        attend(worker, sizes, (layer, sizes.M // CHUNK), memory.cross, lengths, scratch)
        wait(scratch.barrier, worker.num_threads)
        join_chunks(worker, sizes, lengths, scratch.partial)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + CROSS_OUT, own, D, hidden, sums, ADD)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(hidden, norms, (3 * layer + 1) * D, own, D, sizes.eps, b)
        round_states(worker, weights, own, D)
        moment = step, position % sizes.window
        _project_and_store(worker, weights, sizes, memory, scratch, rows, layer, moment)
        wait(scratch.barrier, worker.num_threads)
        attend(worker, sizes, (layer, sizes.W // CHUNK), memory.own, worker.seen, scratch)
        wait(scratch.barrier, worker.num_threads)
        join_chunks(worker, sizes, worker.seen, scratch.partial)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + OUT, own, D, hidden, sums, ADD)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(hidden, norms, (3 * layer + 2) * D, own, D, sizes.eps, b)
        feed_forward(worker, weights, scratch, base + GATE, D, sizes.F)
        wait(scratch.barrier, worker.num_threads)

# SPDX-License-Identifier: Apache-2.0
"""The layers of the large transformer in the decoding kernels, one position at a time.

Threads share out the rows of each matrix and the heads of each attention, and wait for each other
before one reads what another has written. No sum is split between threads, so results have the same
bits for any number of them, and a row of a batch has the bits that it has alone.

The letters of shapes (B, D, ...) stand in `cpu_records`. numba's cache of `cpu_decoding` notices no
edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy import ndarray

from ..rendering.exp2 import exp2
from .cpu_arithmetic import (
    BLOCK,
    F32,
    FAST_MATH,
    LANES,
    LARGEST,
    LEAST_SCALE,
    LOG2_E,
    ONE,
    ZERO,
    U,
    is_rounded,
    larger,
    narrow,
    packed,
    pad,
    place_in_group,
    round_blocks,
    share,
    share_rows,
    sum_columns,
    sum_columns_2,
    sum_columns_4,
    wait,
)
from .cpu_records import CHUNK, Memory, Rows, Scratch, Sizes, Weights, Worker

LOWEST, START = F32(-3e38), np.int64(0)
# Matrices of a layer, in the order of their addresses.
CROSS_QUERY, CROSS_OUT, QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(9)
NUM_MATRICES = 9
# What a product does with what is there.
SET, ADD, SWIGLU = range(3)


@njit(fastmath=FAST_MATH)
def normalize(
    x: ndarray, weight: ndarray, first: int, out: ndarray, D: int, eps: float, b: int
) -> None:
    """RMSNorm of a row's state, which is D wide; the weights start at `first`."""
    width, at, total = U(D), U(b * D), ZERO
    for k in range(width):
        total += x[at + k] * x[at + k]
    factor = ONE / np.sqrt(total / F32(D) + F32(eps))
    for k in range(width):
        out[at + k] = x[at + k] * factor * weight[U(first) + k]


@njit(fastmath=FAST_MATH)
def _gate(gate: float, up: float) -> float:
    """The SiLU of a number times another one."""
    small = exp2(-abs(gate) * LOG2_E)
    return gate * up * ((ONE if gate >= ZERO else small) / (ONE + small))


@njit
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


@njit
def round_states(worker: Worker, weights: Weights, x: ndarray, size: int) -> None:
    """Rounds the states of the live sequences if that is how the matrices want them. [B size]"""
    if is_rounded(weights.matrices):
        for b in worker.live:
            round_blocks(x, b * size, size, worker.rounded, b * _pad_blocks(size))


@njit
def _pad_blocks(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


@njit
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


@njit
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
    live, sums, n = worker.live, worker.sums, 0
    start, matrices = weights.starts[which], weights.matrices
    for group in range(first // LANES * LANES, last, LANES):
        low, high = max(first - group, 0), min(last - group, LANES)
        scales = weights.scales, weights.first_scales[which] + group
        n = 0
        while n < len(live):
            count = _sum_group(worker, matrices, start + group * pad(size), x, size, n)
            for m in range(count):
                place = y, offset + live[n + m] * step + group
                if high - low == LANES:  # a loop whose length is known is quicker
                    _put((sums, m * LANES), scales, place, 0, LANES, how)
                else:
                    _put((sums, m * LANES), scales, place, low, high, how)
            n += count


@njit(fastmath=FAST_MATH)
def _attend(
    worker: Worker, query: tuple, keys: tuple, values: tuple, count: int, widths: tuple, out: tuple
) -> None:
    """One head over one chunk of keys: sums of values, largest score, sum of weights.

    Queries and results are arrays with an offset; keys and values have another pair for scales.
    """
    P, V = widths
    scores, rounded = worker.scores, worker.rounded
    scale, top, total = ONE / np.sqrt(F32(P)), LOWEST, ZERO
    key_scales, value_scales, place = keys[2], values[2], U(keys[3])
    x, j = query
    if is_rounded(keys[0]):
        round_blocks(x, j, P, rounded, START)
        j = START
    for t in range(0, count, LANES):
        sum_columns(keys[0], keys[1] + t * pad(P), x, rounded, j, P, scores, t)
    for t in range(U(count)):
        scores[t] *= scale * key_scales[place + t]
        top = larger(top, scores[t])
    for t in range(U(count)):
        weight = exp2((scores[t] - top) * LOG2_E)
        total += weight
        scores[t] = weight * value_scales[place + t]
    if is_rounded(keys[0]):
        round_blocks(scores, START, count, rounded, START)
    result, at = out
    for d in range(0, V, LANES):
        first = values[1] + d * CHUNK
        sum_columns(values[0], first, scores, rounded, START, count, result, at + d)
    result[U(at + V)], result[U(at + V + 1)] = top, total


@njit
def _attend_all(worker: Worker, sizes: Sizes, layer: int, store: tuple, scratch: Scratch) -> None:
    """This thread's part of the heads and chunks.

    The store: keys, values, their scales, the number of keys, W or M.
    """
    keys, values, key_scales, value_scales, lengths, step = store
    H, P, V, num_chunks = sizes.H, sizes.P, sizes.V, max(sizes.W, sizes.M) // CHUNK
    most = 0
    for b in worker.live:
        most = max(most, (lengths[b] + CHUNK - 1) // CHUNK)
    first, last = share(len(worker.live) * H * most, worker.thread, worker.num_threads)
    for unit in range(first, last):
        b, h, chunk = worker.live[unit // (H * most)], unit // most % H, unit % most
        count = min(lengths[b] - chunk * CHUNK, CHUNK)
        if count > 0:
            at = ((layer * sizes.B + b) * H + h) * step + chunk * CHUNK
            place = ((b * H + h) * num_chunks + chunk) * (V + 2)
            query = scratch.projected, (b * 3 * H + h) * P
            key, value = (keys, at * pad(P), key_scales, at), (values, at * V, value_scales, at)
            _attend(worker, query, key, value, count, (P, V), (scratch.partial, place))


@njit(fastmath=FAST_MATH)
def _join_chunks(worker: Worker, sizes: Sizes, lengths: ndarray, partial: ndarray) -> None:
    """The attention of all heads, from their chunks, into the thread's own states."""
    H, P, V, num_chunks = sizes.H, sizes.P, sizes.V, max(sizes.W, sizes.M) // CHUNK
    for b in worker.live:
        chunks = (lengths[b] + CHUNK - 1) // CHUNK
        for h in range(H):
            start, at = (b * H + h) * num_chunks * (V + 2), U((b * H + h) * P)
            top, total = LOWEST, ZERO
            for chunk in range(chunks):
                top = larger(top, partial[U(start + chunk * (V + 2) + V)])
            for d in range(U(P)):
                worker.own[at + d] = ZERO
            for chunk in range(chunks):
                source = U(start + chunk * (V + 2))
                share_of_chunk = exp2((partial[source + U(V)] - top) * LOG2_E)
                total += share_of_chunk * partial[source + U(V + 1)]
                for d in range(U(P)):
                    worker.own[at + d] += share_of_chunk * partial[source + d]
            factor = ONE / total
            for d in range(U(P)):
                worker.own[at + d] *= factor


@njit(fastmath=FAST_MATH)
def _rotate(
    states: ndarray, at: int, cosines: ndarray, sines: ndarray, turn: int, half: int
) -> None:
    """Rotary position embedding of one head, in place."""
    for k in range(U(half)):
        i, j = U(at) + k, U(at + half) + k
        first, second, cos, sin = states[i], states[j], cosines[U(turn) + k], sines[U(turn) + k]
        states[i] = first * cos - second * sin
        states[j] = second * cos + first * sin


@njit(fastmath=FAST_MATH)
def _choose_scale(x: ndarray, at: int, P: int, like: ndarray) -> float:
    """What stored numbers of a head are multiplied by: 1, or what int8 needs."""
    if not is_rounded(like):
        return ONE
    largest = LEAST_SCALE
    for d in range(U(P)):
        largest = larger(largest, abs(x[U(at) + d]))
    return largest / LARGEST


@njit
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
                ring = ((layer * sizes.B + b) * H + h) * sizes.W
                _store(scratch.projected, at, sizes, memory, (ring, place), which == 1)


@njit
def _store(x: ndarray, at: int, sizes: Sizes, memory: Memory, ring: tuple, is_key: bool) -> None:
    """A key, or a value, at a place of a head's ring."""
    start, place = ring
    scale = _choose_scale(x, at, sizes.P, memory.keys)
    factor = ONE / scale
    scales = memory.key_scales if is_key else memory.value_scales
    scales[start + place] = scale
    size, width = packed(memory.keys), pad(sizes.P)
    for d in range(sizes.P):
        number = narrow(x[at + d] * factor, memory.keys)
        if is_key:
            group = (start + place // LANES * LANES) * width
            memory.keys[group + place_in_group(place % LANES, d, size)] = number
        else:
            group = start * sizes.V + (place // CHUNK * sizes.V + d // LANES * LANES) * CHUNK
            memory.values[group + place_in_group(d % LANES, place % CHUNK, size)] = number


@njit
def feed_forward(
    worker: Worker, weights: Weights, scratch: Scratch, first_matrix: int, D: int, F: int
) -> None:
    """The gated network on the thread's normalised states, added to the hidden ones.

    Its three matrices follow each other: gate, up, down.
    """
    own, gated = worker.own, scratch.gated
    first, last = share_rows(0, F, worker.thread, worker.num_threads)
    places = first, last, START, F
    round_states(worker, weights, own, D)
    multiply(worker, weights, first_matrix, own, D, gated, places, SET)
    multiply(worker, weights, first_matrix + 1, own, D, gated, places, SWIGLU)
    wait(scratch.barrier, worker.num_threads)
    first, last = share_rows(0, D, worker.thread, worker.num_threads)
    down, places = first_matrix + 2, (first, last, START, D)
    round_states(worker, weights, gated, F)
    multiply(worker, weights, down, gated, F, scratch.hidden, places, ADD)


@njit
def transform(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    step: int, position: int,
) -> None:  # fmt: skip
    """All layers on the hidden states of the live rows, in place, at one position."""
    D, live, norms = sizes.D, worker.live, weights.norms
    own, projected, hidden = worker.own, scratch.projected, scratch.hidden
    first, last = share_rows(0, D, worker.thread, worker.num_threads)
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
        cross = memory.cross_keys, memory.cross_values
        cross_scales = memory.cross_key_scales, memory.cross_value_scales
        store = *cross, *cross_scales, memory.cross_lengths, sizes.M
        _attend_all(worker, sizes, layer, store, scratch)
        wait(scratch.barrier, worker.num_threads)
        _join_chunks(worker, sizes, memory.cross_lengths, scratch.partial)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + CROSS_OUT, own, D, hidden, sums, ADD)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(hidden, norms, (3 * layer + 1) * D, own, D, sizes.eps, b)
        round_states(worker, weights, own, D)
        moment = step, position % sizes.window
        _project_and_store(worker, weights, sizes, memory, scratch, rows, layer, moment)
        wait(scratch.barrier, worker.num_threads)
        ring = memory.keys, memory.values, memory.key_scales, memory.value_scales
        _attend_all(worker, sizes, layer, (*ring, worker.seen, sizes.W), scratch)
        wait(scratch.barrier, worker.num_threads)
        _join_chunks(worker, sizes, worker.seen, scratch.partial)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + OUT, own, D, hidden, sums, ADD)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(hidden, norms, (3 * layer + 2) * D, own, D, sizes.eps, b)
        feed_forward(worker, weights, scratch, base + GATE, D, sizes.F)
        wait(scratch.barrier, worker.num_threads)

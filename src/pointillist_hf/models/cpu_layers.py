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
from numba import carray, njit
from numpy import ndarray

from ..rendering.exp2 import exp2
from .cpu_arithmetic import (
    F32,
    FAST_MATH,
    LOG2_E,
    ONE,
    ZERO,
    U,
    dot,
    dots_2,
    dots_4,
    is_rounded,
    narrow,
    pointer,
    share,
    wait,
)
from .cpu_records import CHUNK, Memory, Rows, Scratch, Sizes, Weights, Worker

LOWEST, START = F32(-3e38), np.int64(0)
LEAST_SCALE = F32(1e-30)
# Matrices of a layer, in the order of their addresses.
CROSS_QUERY, CROSS_OUT, QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(9)
NUM_MATRICES = 9


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


@njit
def _put(y: ndarray, at: int, value: float, adds: bool) -> None:
    y[U(at)] = y[U(at)] + value if adds else value


@njit
def multiply(
    weights: Weights, which: int, x: ndarray, size: int, y: ndarray, places: tuple, live: ndarray,
    adds: bool,
) -> None:  # fmt: skip
    """Some rows of a matrix times the states of the live sequences.

    Args:
        weights: The network.
        which: Of all matrices of all layers.
        x: States. [B size]
        size: Elements of a state.
        y: Gets the results.
        places: First row, and one past the last; where y starts, distance of the sequences in it.
        live: Rows of the batch.
        adds: Whether results are added to what is there.
    """
    first, last, offset, step = places
    matrix = carray(pointer(weights.addresses[which], weights.like), last * size)
    for i in range(first, last):
        scale = weights.scales[which, i]
        # A row is read and widened once for four sequences.
        n, start = 0, i * size
        while n < len(live):
            left, b = len(live) - n, live[n]
            if left >= 4:
                b1, b2, b3 = live[n + 1], live[n + 2], live[n + 3]
                at = b * size, b1 * size, b2 * size, b3 * size
                v0, v1, v2, v3 = dots_4(matrix, start, x, at, size)
                _put(y, offset + b2 * step + i, scale * v2, adds)
                _put(y, offset + b3 * step + i, scale * v3, adds)
            elif left >= 2:
                b1 = live[n + 1]
                v0, v1 = dots_2(matrix, start, x, (b * size, b1 * size), size)
            else:
                b1, v0, v1 = b, dot(matrix, start, x, b * size, size), ZERO
            _put(y, offset + b * step + i, scale * v0, adds)
            if left >= 2:
                _put(y, offset + b1 * step + i, scale * v1, adds)
            n += 4 if left >= 4 else (2 if left >= 2 else 1)


@njit(fastmath=FAST_MATH)
def _attend(
    query: tuple, keys: tuple, values: tuple, count: int, P: int, scores: ndarray, out: tuple
) -> None:
    """One head over one chunk of keys: sums of values, largest score, sum of weights.

    Queries and results are arrays with an offset; keys and values have another pair for scales.
    """
    scale, top, total = ONE / np.sqrt(F32(P)), LOWEST, ZERO
    key_scales, value_scales, place = keys[2], values[2], U(keys[3])
    for t in range(U(count)):
        factor = scale * key_scales[place + t]
        scores[t] = factor * dot(keys[0], U(keys[1]) + t * U(P), query[0], query[1], P)
    for t in range(U(count)):
        top = max(top, scores[t])
    for t in range(U(count)):
        weight = exp2((scores[t] - top) * LOG2_E)
        total += weight
        scores[t] = weight * value_scales[place + t]
    result, at = out[0], U(out[1])
    for d in range(U(P)):
        result[at + d] = dot(values[0], U(values[1]) + d * U(CHUNK), scores, 0, count)
    result[at + U(P)], result[at + U(P) + U(1)] = top, total


@njit
def _attend_all(worker: Worker, sizes: Sizes, layer: int, store: tuple, scratch: Scratch) -> None:
    """This thread's part of the heads and chunks.

    The store: keys, values, their scales, the number of keys, W or M.
    """
    keys, values, key_scales, value_scales, lengths, step = store
    H, P, num_chunks = sizes.H, sizes.P, max(sizes.W, sizes.M) // CHUNK
    most = 0
    for b in worker.live:
        most = max(most, (lengths[b] + CHUNK - 1) // CHUNK)
    first, last = share(len(worker.live) * H * most, worker.thread, worker.num_threads)
    for unit in range(first, last):
        b, h, chunk = worker.live[unit // (H * most)], unit // most % H, unit % most
        count = min(lengths[b] - chunk * CHUNK, CHUNK)
        if count > 0:
            at = ((layer * sizes.B + b) * H + h) * step + chunk * CHUNK
            place = ((b * H + h) * num_chunks + chunk) * (P + 2)
            query = scratch.projected, (b * 3 * H + h) * P
            key, value = (keys, at * P, key_scales, at), (values, at * P, value_scales, at)
            _attend(query, key, value, count, P, worker.scores, (scratch.partial, place))


@njit(fastmath=FAST_MATH)
def _join_chunks(worker: Worker, sizes: Sizes, lengths: ndarray, partial: ndarray) -> None:
    """The attention of all heads, from their chunks, into the thread's own states."""
    H, P, num_chunks = sizes.H, sizes.P, max(sizes.W, sizes.M) // CHUNK
    for b in worker.live:
        chunks = (lengths[b] + CHUNK - 1) // CHUNK
        for h in range(H):
            start, at = (b * H + h) * num_chunks * (P + 2), U((b * H + h) * P)
            top, total = LOWEST, ZERO
            for chunk in range(chunks):
                top = max(top, partial[U(start + chunk * (P + 2) + P)])
            for d in range(U(P)):
                worker.own[at + d] = ZERO
            for chunk in range(chunks):
                source = U(start + chunk * (P + 2))
                share_of_chunk = exp2((partial[source + U(P)] - top) * LOG2_E)
                total += share_of_chunk * partial[source + U(P + 1)]
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
        largest = max(largest, abs(x[U(at) + d]))
    return largest / F32(127)


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
        multiply(weights, matrix, worker.own, D, scratch.projected, heads, worker.live, False)
        for b in worker.live:
            at = (b * 3 + which) * D + h * P
            if which < 2:
                _rotate(scratch.projected, at, rows.cosines, rows.sines, step * (P // 2), P // 2)
            if which:
                ring = ((layer * sizes.B + b) * H + h) * sizes.W
                _store(scratch.projected, at, P, memory, (ring, place), which == 1)


@njit
def _store(x: ndarray, at: int, P: int, memory: Memory, ring: tuple, is_key: bool) -> None:
    """A key, or a value, at a place of a head's ring."""
    start, inside = (ring[0] + ring[1] // CHUNK * CHUNK) * P, ring[1] % CHUNK
    scale = _choose_scale(x, at, P, memory.keys)
    factor = ONE / scale
    scales = memory.key_scales if is_key else memory.value_scales
    scales[ring[0] + ring[1]] = scale
    for d in range(P):
        number = narrow(x[at + d] * factor, memory.keys)
        if is_key:
            memory.keys[start + inside * P + d] = number
        else:
            memory.values[start + d * CHUNK + inside] = number


@njit(fastmath=FAST_MATH)
def _gate(gated: ndarray, up: float, at: int) -> None:
    """Multiplies by the SiLU of what is there."""
    gate = gated[at]
    small = exp2(-abs(gate) * LOG2_E)
    gated[at] = gate * up * ((ONE if gate >= ZERO else small) / (ONE + small))


@njit
def feed_forward(
    worker: Worker, weights: Weights, scratch: Scratch, first_matrix: int, D: int, F: int
) -> None:
    """The gated network on the thread's normalised states, added to the hidden ones.

    Its three matrices follow each other: gate, up, down.
    """
    live, gate, up = worker.live, first_matrix, first_matrix + 1
    first, last = share(F, worker.thread, worker.num_threads)
    multiply(weights, gate, worker.own, D, scratch.gated, (first, last, START, F), live, False)
    matrix = carray(pointer(weights.addresses[up], weights.like), F * D)
    for i in range(first, last):
        scale = weights.scales[up, i]
        for b in live:
            _gate(scratch.gated, scale * dot(matrix, i * D, worker.own, b * D, D), b * F + i)
    wait(scratch.barrier, worker.num_threads)
    first, last = share(D, worker.thread, worker.num_threads)
    rows = first, last, START, D
    multiply(weights, first_matrix + 2, scratch.gated, F, scratch.hidden, rows, live, True)


@njit
def transform(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    step: int, position: int,
) -> None:  # fmt: skip
    """All layers on the hidden states of the live rows, in place, at one position."""
    D, live, norms = sizes.D, worker.live, weights.norms
    first, last = share(D, worker.thread, worker.num_threads)
    queries, sums = (first, last, START, 3 * D), (first, last, START, D)
    for b in live:
        worker.seen[b] = min(position + 1, sizes.window)
    for layer in range(sizes.layers):
        base = layer * NUM_MATRICES
        for b in live:
            normalize(scratch.hidden, norms, 3 * layer * D, worker.own, D, sizes.eps, b)
        multiply(
            weights, base + CROSS_QUERY, worker.own, D, scratch.projected, queries, live, False
        )
        wait(scratch.barrier, worker.num_threads)
        cross = memory.cross_keys, memory.cross_values
        cross_scales = memory.cross_key_scales, memory.cross_value_scales
        store = *cross, *cross_scales, memory.cross_lengths, sizes.M
        _attend_all(worker, sizes, layer, store, scratch)
        wait(scratch.barrier, worker.num_threads)
        _join_chunks(worker, sizes, memory.cross_lengths, scratch.partial)
        multiply(weights, base + CROSS_OUT, worker.own, D, scratch.hidden, sums, live, True)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(scratch.hidden, norms, (3 * layer + 1) * D, worker.own, D, sizes.eps, b)
        moment = step, position % sizes.window
        _project_and_store(worker, weights, sizes, memory, scratch, rows, layer, moment)
        wait(scratch.barrier, worker.num_threads)
        ring = memory.keys, memory.values, memory.key_scales, memory.value_scales
        _attend_all(worker, sizes, layer, (*ring, worker.seen, sizes.W), scratch)
        wait(scratch.barrier, worker.num_threads)
        _join_chunks(worker, sizes, worker.seen, scratch.partial)
        multiply(weights, base + OUT, worker.own, D, scratch.hidden, sums, live, True)
        wait(scratch.barrier, worker.num_threads)

        for b in live:
            normalize(scratch.hidden, norms, (3 * layer + 2) * D, worker.own, D, sizes.eps, b)
        feed_forward(worker, weights, scratch, base + GATE, D, sizes.F)
        wait(scratch.barrier, worker.num_threads)

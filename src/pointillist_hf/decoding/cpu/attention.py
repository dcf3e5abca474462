# SPDX-License-Identifier: Apache-2.0
"""Attention in the decoding kernels: what is kept of keys and values, and how it is met.

A chunk of a head is what a thread attends to at a time; what the chunks give is joined afterwards.
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
    LARGEST,
    LEAST_SCALE,
    LOG2_E,
    ONE,
    START,
    ZERO,
    U,
    is_rounded,
    larger,
    narrow,
    packed,
    pad,
    place_in_group,
    share,
)
from .products import add_up, sum_columns
from .records import CHUNK, Scratch, Sizes, Store, Worker
from .rounding import round_blocks

LOWEST = F32(-3e38)


@compile_part(fastmath=FAST_MATH)
def _choose_scale(x: ndarray, at: int, P: int, like: ndarray) -> float:
    """What stored numbers of a head are multiplied by: 1, or what int8 needs."""
    if not is_rounded(like):
        return ONE
    largest = LEAST_SCALE
    for d in range(U(P)):
        largest = larger(largest, abs(x[U(at) + d]))
    return largest / LARGEST


@compile_part()
def put(x: ndarray, at: int, sizes: Sizes, store: Store, place: tuple, is_value: bool) -> None:
    """Stores a head's key, or value, at a place of a block."""
    block, inside = place
    width, V, size = pad(sizes.P), sizes.V, packed(store.numbers)
    scale = _choose_scale(x, at, sizes.P, store.numbers)
    factor = ONE / scale
    if is_rounded(store.numbers):
        store.scales[(2 * block + is_value) * CHUNK + inside] = scale
    keys = block * (width + V) * CHUNK
    for d in range(sizes.P):
        number = narrow(x[at + d] * factor, store.numbers)
        if is_value:
            values = keys + (width + d // LANES * LANES) * CHUNK
            store.numbers[values + place_in_group(d % LANES, inside, size)] = number
        else:
            group = keys + inside // LANES * LANES * width
            store.numbers[group + place_in_group(inside % LANES, d, size)] = number


@compile_part(fastmath=FAST_MATH)
def _attend_to_block(
    worker: Worker, sizes: Sizes, query: tuple, store: Store, block: int, count: int, out: tuple
) -> None:
    """So many keys of a block: sums of values, largest score, sum of weights.

    Queries and results are arrays with an offset.
    """
    P, V, numbers, scales = sizes.P, sizes.V, store.numbers, store.scales
    scores, rounded = worker.scores, worker.rounded
    keys = block * (pad(P) + V) * CHUNK
    values, place = keys + pad(P) * CHUNK, U(2 * block * CHUNK)
    scale, top = ONE / np.sqrt(F32(P)), LOWEST
    x, j = query
    if is_rounded(numbers):
        round_blocks(x, j, P, rounded, START)
        j = START
    for t in range(0, count, LANES):
        sum_columns(numbers, keys + t * pad(P), x, rounded, j, P, scores, t)
    for t in range(U(count)):
        scores[t] *= scale * (scales[place + t] if is_rounded(numbers) else ONE)
        top = larger(top, scores[t])
    for t in range(U(count)):
        scores[t] = exp2((scores[t] - top) * LOG2_E)
    total = add_up(scores, START, count)
    if is_rounded(numbers):
        for t in range(U(count)):
            scores[t] *= scales[place + U(CHUNK) + t]
        round_blocks(scores, START, count, rounded, START)
    result, at = out
    for d in range(0, V, LANES):
        sum_columns(numbers, values + d * CHUNK, scores, rounded, START, count, result, at + d)
    result[U(at + V)], result[U(at + V + 1)] = top, total


@compile_part()
def attend(
    worker: Worker, sizes: Sizes, place: tuple, store: Store, lengths: ndarray, scratch: Scratch
) -> None:
    """This thread's part of the chunks and heads.

    The place is a layer, and the number of chunks that the store has room for in each.
    """
    layer, room = place
    H, V, num_chunks = sizes.H, sizes.V, max(sizes.W, sizes.M) // CHUNK
    most = 0
    for b in worker.live:
        most = max(most, (lengths[b] + CHUNK - 1) // CHUNK)
    first, last = share(len(worker.live) * H * most, worker.thread, worker.num_threads)
    for unit in range(first, last):
        b, chunk, h = worker.live[unit // (H * most)], unit // H % most, unit % H
        count = min(lengths[b] - chunk * CHUNK, CHUNK)
        if count > 0:
            row = layer * store.num_rows + store.rows[b]
            block = (row * room + chunk) * H + h
            out = scratch.partial, ((b * H + h) * num_chunks + chunk) * (V + 2)
            query = scratch.projected, (b * 3 * H + h) * sizes.P
            _attend_to_block(worker, sizes, query, store, block, count, out)


@compile_part(fastmath=FAST_MATH)
def join_chunks(worker: Worker, sizes: Sizes, lengths: ndarray, partial: ndarray) -> None:
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
            factor = ONE / total if chunks else ZERO  # there may be no conditioning
            for d in range(U(P)):
                worker.own[at + d] *= factor

# SPDX-License-Identifier: Apache-2.0
"""The depth head in the decoding kernels: four slots from one step of the large transformer.

As `layers` is for the large one. numba's cache of `points` notices no edits in this file:
delete `__pycache__` after one.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...kernels.compilation import compile_part
from ...kernels.exp2 import exp2
from .anchoring import share_rest
from .arithmetic import (
    F32,
    FAST_MATH,
    LANES,
    LOG2_E,
    ONE,
    START,
    ZERO,
    U,
    larger,
    share_rows,
    wait,
)
from .attention import LOWEST
from .layers import ADD, SET, feed_forward, multiply, normalize, round_states
from .products import sum_columns
from .records import (
    SLOTS,
    DepthScratch,
    DepthSizes,
    Faces,
    Rows,
    Scratch,
    Sizes,
    Weights,
    Worker,
)

# Its matrices as `weights` orders them: two, then those of each layer.
STATE_PROJ, OUT_PROJ, LAYERS = range(3)
DEPTH_QUERY, DEPTH_KEY, DEPTH_VALUE, DEPTH_OUT, DEPTH_GATE = range(5)  # then up and down
NUM_MATRICES = 7


@compile_part(is_inlined=True)
def feed_point(
    worker: Worker, weights: Weights, faces: Faces | None, D: int, scratch: Scratch, rows: Rows,
    moment: tuple,
) -> None:  # fmt: skip
    """The large transformer's input at a step and position: the sum of four rows of a table."""
    step, position = moment
    hidden, inputs = scratch.hidden, weights.inputs
    for b in worker.live:
        if b % worker.num_threads == worker.thread:
            at = U(b * D)
            for k in range(U(D)):
                hidden[at + k] = inputs.start[k] if position == 0 else ZERO
            for slot in range(SLOTS if position else 0):
                token = rows.tokens[b, SLOTS * step + slot]
                row = inputs.offsets[slot] + token
                if faces is not None:
                    row += faces.shifts[SLOTS * b + slot]
                first = U(row * D)
                for k in range(U(D)):
                    hidden[at + k] += inputs.points[first + k]


@compile_part(is_inlined=True)
def share_point(
    worker: Worker, weights: Weights, sizes: Sizes, depth: DepthSizes, kept: DepthScratch
) -> None:
    """What the slots of a point have in common, from the thread's normalised states."""
    first, last = share_rows(START, depth.D2, worker.thread, worker.num_threads)
    rows = first, last, START, depth.D2
    matrix = depth.first_matrix + STATE_PROJ
    round_states(worker, weights, worker.own, sizes.D)
    multiply(worker, weights, matrix, worker.own, sizes.D, kept.shared, rows, SET)


@compile_part(is_inlined=True)
def _feed_slot(
    worker: Worker, weights: Weights, faces: Faces | None, D: int, scratch: Scratch,
    shared: ndarray, token: tuple,
) -> None:  # fmt: skip
    """The small transformer's input: what the slots share, and the token before."""
    tokens, column, slot = token
    hidden, inputs = scratch.hidden, weights.inputs
    for b in worker.live:
        if b % worker.num_threads == worker.thread:
            at, row = U(b * D), 0
            if slot:
                row = inputs.offsets[slot - 1] + tokens[b, column - 1]
                if faces is not None:
                    row += faces.shifts[SLOTS * b + slot - 1]
                    if slot == 1:
                        share_rest(faces, row, D, shared, b)
            for k in range(U(D)):
                hidden[at + k] = shared[at + k]
            if slot:
                first = U(row * D)
                for k in range(U(D)):
                    hidden[at + k] += inputs.tokens[first + k]


@compile_part(fastmath=FAST_MATH)
def _attend_to_slots(
    worker: Worker, sizes: tuple, queries: ndarray, kept: DepthScratch, place: tuple
) -> None:
    """All heads over the slots so far, into the thread's own states."""
    B, D, H = sizes
    layer, slot = place
    P, scores, own = D // H, worker.scores, worker.own
    scale = ONE / np.sqrt(F32(P))
    for b in worker.live:
        row = layer * B + b
        for h in range(H):
            top, total = LOWEST, ZERO
            at = b * D + h * P
            first = (row * D + h * P) * LANES
            sum_columns(kept.keys, first, queries, worker.rounded, at, P, scores, START)
            for t in range(slot + 1):
                scores[t] *= scale
                top = larger(top, scores[t])
            for k in range(U(P)):
                own[U(at) + k] = ZERO
            for t in range(slot + 1):
                weight = exp2((scores[t] - top) * LOG2_E)
                value = U((row * SLOTS + t) * D + h * P)
                total += weight
                for k in range(U(P)):
                    own[U(at) + k] += weight * kept.values[value + k]
            for k in range(U(P)):
                own[U(at) + k] /= total


@compile_part(is_inlined=True)
def _transform_slot(
    worker: Worker, weights: Weights, sizes: Sizes, depth: DepthSizes, scratch: Scratch,
    kept: DepthScratch, slot: int,
) -> None:  # fmt: skip
    """The small transformer on the hidden states of the live rows, in place, at one slot."""
    D, live, own, norms = depth.D2, worker.live, worker.own, weights.inputs.norms
    hidden, projected = scratch.hidden, scratch.projected
    first, last = share_rows(START, D, worker.thread, worker.num_threads)
    rows, key_rows = (first, last, START, D), (first, last, sizes.B * D, D)
    for layer in range(depth.L2):
        base = depth.first_matrix + LAYERS + NUM_MATRICES * layer
        stored = first, last, (layer * sizes.B * SLOTS + slot) * D, SLOTS * D
        for b in live:
            normalize(hidden, norms, 2 * layer * D, own, D, sizes.eps, b)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + DEPTH_QUERY, own, D, projected, rows, SET)
        multiply(worker, weights, base + DEPTH_KEY, own, D, projected, key_rows, SET)
        multiply(worker, weights, base + DEPTH_VALUE, own, D, kept.values, stored, SET)
        for b in live:
            for k in range(first, last):
                key = ((layer * sizes.B + b) * D + k) * LANES + slot
                kept.keys[key] = projected[(sizes.B + b) * D + k]
        wait(scratch.barrier, worker.num_threads)
        measures, place = (sizes.B, D, depth.H2), (layer, slot)
        _attend_to_slots(worker, measures, projected, kept, place)
        round_states(worker, weights, own, D)
        multiply(worker, weights, base + DEPTH_OUT, own, D, hidden, rows, ADD)
        wait(scratch.barrier, worker.num_threads)
        for b in live:
            normalize(hidden, norms, (2 * layer + 1) * D, own, D, sizes.eps, b)
        feed_forward(worker, weights, scratch, base + DEPTH_GATE, D, depth.F2)
        wait(scratch.barrier, worker.num_threads)


@compile_part(is_inlined=True)
def emit_slot(
    worker: Worker, weights: Weights, faces: Faces | None, sizes: Sizes, depth: DepthSizes,
    scratch: Scratch, kept: DepthScratch, rows: Rows, place: tuple,
) -> None:  # fmt: skip
    """The states that a slot is predicted from, in the thread's own states and in the rows'.

    The place is the column of the token that is predicted, and its slot.
    """
    column, slot = place
    token = rows.tokens, column, slot
    _feed_slot(worker, weights, faces, depth.D2, scratch, kept.shared, token)
    wait(scratch.barrier, worker.num_threads)
    _transform_slot(worker, weights, sizes, depth, scratch, kept, slot)
    first, last = share_rows(START, sizes.D, worker.thread, worker.num_threads)
    out, places = depth.first_matrix + OUT_PROJ, (first, last, START, sizes.D)
    round_states(worker, weights, scratch.hidden, depth.D2)
    multiply(worker, weights, out, scratch.hidden, depth.D2, kept.states, places, SET)
    wait(scratch.barrier, worker.num_threads)
    norm = weights.inputs.out_norm
    for b in worker.live:
        normalize(kept.states, norm, START, worker.own, sizes.D, sizes.eps, b)
        if b % worker.num_threads == worker.thread:
            for k in range(U(sizes.D)):
                rows.states[b, column - 1, k] = worker.own[U(b * sizes.D) + k]

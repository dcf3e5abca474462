# SPDX-License-Identifier: Apache-2.0
"""Bindings anchored on a head, in the decoding kernels: what `FaceAnchors` scores.

The letters of shapes (B, D, ...) stand in `records`. numba's cache of `points` notices no edits in
this file: delete `__pycache__` after one.
"""

from __future__ import annotations

from numpy import ndarray

from ...kernels.compilation import compile_part
from .arithmetic import START, U, share_rows
from .layers import SET, multiply
from .records import SLOTS, Faces, Rows, Scratch, Weights, Worker
from .sampling import Rules

ENDS = 2  # logits for all values below those within reach, and for all above


@compile_part()
def share_rest(faces: Faces, row: int, D: int, shared: ndarray, b: int) -> None:
    """Adds where in its bins an anchor lies to what the slots of a point share.

    The row is the face's in the tables of `DepthInputs`.
    """
    if faces.reach:
        first, at = U(row * D), U(b * D)
        for k in range(U(D)):
            shared[at + k] += faces.rests[first + k]


@compile_part()
def _last_face(rules: Rules, tokens: ndarray, b: int, column: int) -> int:
    """The face of the point before the one that begins in a column; -1 before the first."""
    face = tokens[b, column - SLOTS] - rules.firsts[0]
    return face if face < rules.counts[0] else -1


@compile_part()
def _bound_faces(
    faces: Faces, rules: Rules, tokens: ndarray, b: int, column: int
) -> tuple[int, int]:
    """First face, and one past the last, that the grammar may ask about."""
    count = rules.counts[faces.slot]
    if faces.slot != 0 or rules.num_sorted == 0:
        return 0, count
    last = _last_face(rules, tokens, b, column)
    return max(last, 0), (min(last + 2, count) if rules.has_every_face else count)


@compile_part()
def score_faces(
    worker: Worker, faces: Faces, D: int, rules: Rules, scratch: Scratch, rows: Rows, column: int
) -> None:
    """Logits of the faces of each row's head, from the thread's states. A column is a point's."""
    live, n = worker.live, 0
    while n < len(live):
        # Rows side by side that have a head in common.
        head, end = faces.heads[live[n]], n + 1
        low, high = _bound_faces(faces, rules, rows.tokens, live[n], column)
        while end < len(live) and faces.heads[live[end]] == head:
            first, last = _bound_faces(faces, rules, rows.tokens, live[end], column)
            low, high, end = min(low, first), max(high, last), end + 1
        first, last = share_rows(low, high, worker.thread, worker.num_threads)
        some = Worker(
            worker.thread,
            worker.num_threads,
            worker.own,
            worker.scores,
            worker.sums,
            worker.rounded,
            worker.seen,
            live[n:end],
        )
        places = first, last, START, rules.vocabulary
        multiply(some, faces, head, worker.own, D, scratch.logits, places, SET)
        n = end


@compile_part()
def score_offsets(worker: Worker, weights: Weights, faces: Faces, D: int, slot: int) -> None:
    """What the offsets from the anchor are worth in a slot, but for the biases."""
    if faces.reach:
        width = 2 * faces.reach + 1 + ENDS
        count = width if slot else width - ENDS
        first, last = share_rows(START, count, worker.thread, worker.num_threads)
        matrix = len(weights.starts) - 1 - SLOTS + slot
        places = first, last, START, width
        multiply(worker, weights, matrix, worker.own, D, faces.near, places, SET)


@compile_part()
def add_offsets(
    faces: Faces, rules: Rules, tokens: ndarray, b: int, place: tuple, logits: ndarray
) -> None:
    """Adds them to a row's logits, whose column and slot are the place."""
    column, slot = place
    if faces.reach == 0:
        return
    first, last = 0, rules.counts[slot]
    if slot == 0:
        anchor = _last_face(rules, tokens, b, column)
        first, last = _bound_faces(faces, rules, tokens, b, column)
    else:
        face = tokens[b, column - slot] - rules.firsts[0]
        anchor = faces.bins[(faces.heads[b] * rules.counts[0] + face) * 3 + slot - 1]
    num_near = 2 * faces.reach + 1
    width, at = num_near + ENDS, b * rules.vocabulary
    near, biases = faces.near, faces.biases
    start, bias = b * width, slot * width
    lowest = anchor - faces.reach
    low = min(max(lowest, first), last)
    high = min(max(lowest + num_near, low), last)
    if slot:
        below = near[start + num_near] + biases[bias + num_near]
        above = near[start + num_near + 1] + biases[bias + num_near + 1]
        for i in range(first, low):
            logits[at + i] += below
        for i in range(high, last):
            logits[at + i] += above
    for i in range(low, high):
        logits[at + i] += near[start + i - lowest] + biases[bias + i - lowest]

# SPDX-License-Identifier: Apache-2.0
"""The numba kernels of decoding on the CPU: from token to token without leaving them.

Every thread of a run calls `decode_tokens`, or `decode_points` with the depth head. How they share
the work is told in `layers`.
"""

from __future__ import annotations

from ...kernels.compilation import compile_kernel, compile_part
from .anchoring import add_offsets, score_faces, score_offsets
from .arithmetic import START, U, is_given_up, share_rows, wait
from .depth import emit_slot, feed_point, share_point
from .layers import SET, multiply, normalize, round_states, transform
from .records import (
    SLOTS,
    DepthScratch,
    DepthSizes,
    Faces,
    Memory,
    Rows,
    Scratch,
    Sizes,
    Span,
    Weights,
    Worker,
)
from .sampling import Draws, Rules, choose


@compile_part(is_inlined=True)
def _look_for_live(worker: Worker, rows: Rows) -> Worker:
    """The worker with the rows that have not ended."""
    count = 0
    for b in range(len(rows.ended)):
        if not rows.ended[b]:
            worker.live[count] = b
            count += 1
    return Worker(
        worker.thread,
        worker.num_threads,
        worker.own,
        worker.scores,
        worker.sums,
        worker.rounded,
        worker.seen,
        worker.live[:count],
    )


@compile_part(is_inlined=True)
def _score(
    worker: Worker, weights: Weights, faces: Faces | None, D: int, rules: Rules, scratch: Scratch,
    rows: Rows, place: tuple,
) -> None:  # fmt: skip
    """Logits of the ids that a slot may hold, then that of the end, from the thread's states."""
    column, slot = place
    head, start, count = len(weights.starts) - 1, rules.firsts[slot], rules.counts[slot]
    round_states(worker, weights, worker.own, D)
    is_anchored = False
    if faces is not None:
        is_anchored = slot == faces.slot
        if is_anchored:
            score_faces(worker, faces, D, rules, scratch, rows, column)
        score_offsets(worker, weights, faces, D, slot)
    if not is_anchored:
        first, last = share_rows(start, start + count, worker.thread, worker.num_threads)
        places = first, last, -start, rules.vocabulary
        multiply(worker, weights, head, worker.own, D, scratch.logits, places, SET)
    if worker.thread == worker.num_threads - 1:
        places = rules.end, rules.end + 1, count - rules.end, rules.vocabulary
        multiply(worker, weights, head, worker.own, D, scratch.logits, places, SET)


@compile_part(is_inlined=True)
def _draw(
    worker: Worker, weights: Weights, faces: Faces | None, D: int, sampling: tuple,
    scratch: Scratch, rows: Rows, place: tuple,
) -> None:  # fmt: skip
    """The next token of every row, from the thread's states: its column, and its position.

    Rows of a cloud have ends and threads in common, and the last of them draws for all.
    """
    rules, draws = sampling
    streams = rules.num_streams
    column, position = place
    here = column, position % SLOTS
    _score(worker, weights, faces, D, rules, scratch, rows, here)
    wait(scratch.barrier, worker.num_threads)
    for b in worker.live:
        cloud = b // streams
        if cloud % worker.num_threads == worker.thread:
            if faces is not None:
                add_offsets(faces, rules, rows.tokens, b, here, scratch.logits)
            if b % streams == streams - 1:
                token = choose(cloud, position, rules, draws, scratch.logits)
                for row in range(cloud * streams, b + 1):
                    rows.tokens[row, column] = token
                    rows.ended[row] = token == rules.end


@compile_kernel(counts_references=False)
def decode_tokens(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    sampling: tuple[Rules, Draws], span: Span,
) -> int:  # fmt: skip
    """Feeds tokens and draws the next ones, until all rows have ended or the steps are done.

    Returns:
        Number of tokens that are known beyond the first.
    """
    D, inputs = U(sizes.D), weights.inputs
    for step in range(span.num_steps):
        me = _look_for_live(worker, rows)
        if len(me.live) == 0 or is_given_up(scratch.barrier):
            return step
        position = span.position + step
        for b in me.live:
            if b % me.num_threads == me.thread:
                token, at = U(rows.tokens[b, step]) * D, U(b) * D
                for k in range(D):
                    slot = inputs.slot_embedding[U(position % SLOTS) * D + k]
                    scratch.hidden[at + k] = inputs.embedding[token + k] + slot
        wait(scratch.barrier, me.num_threads)
        transform(me, weights, sizes, memory, scratch, rows, step, position)
        for b in me.live:
            normalize(scratch.hidden, weights.final_norm, START, me.own, sizes.D, sizes.eps, b)
            if b % me.num_threads == me.thread:
                for k in range(D):
                    rows.states[b, step, k] = me.own[U(b) * D + k]
        if position + 1 >= SLOTS:  # before that, the prompt goes on
            place = step + 1, position + 1
            _draw(me, weights, None, sizes.D, sampling, scratch, rows, place)
        # The states that others still read are overwritten next.
        wait(scratch.barrier, me.num_threads)
    return span.num_steps


@compile_kernel(counts_references=False)
def decode_points(
    worker: Worker, weights: Weights, sizes: Sizes, memory: Memory, scratch: Scratch, rows: Rows,
    sampling: tuple[Rules, Draws], span: Span, depth: tuple[DepthSizes, DepthScratch],
    faces: Faces | None = None,
) -> int:  # fmt: skip
    """`decode_tokens` with the depth head: a step feeds a point and draws the next one.

    Without `faces`, bindings are free, and what is said of faces is not compiled.

    Returns:
        Number of tokens that are known beyond the first point.
    """
    small, kept = depth
    for step in range(span.num_steps):
        me = _look_for_live(worker, rows)
        if len(me.live) == 0 or is_given_up(scratch.barrier):
            return SLOTS * step
        position = span.position + step
        feed_point(me, weights, faces, sizes.D, scratch, rows, (step, position))
        wait(scratch.barrier, me.num_threads)
        transform(me, weights, sizes, memory, scratch, rows, step, position)
        for b in me.live:
            normalize(scratch.hidden, weights.final_norm, START, me.own, sizes.D, sizes.eps, b)
        share_point(me, weights, sizes, small, kept)
        wait(scratch.barrier, me.num_threads)
        for slot in range(SLOTS):
            if slot == 1:  # a row ends at the first slot or not at all
                me = _look_for_live(worker, rows)
                if len(me.live) == 0:
                    return SLOTS * step + 1
            column = SLOTS * (step + 1) + slot
            emit_slot(me, weights, faces, sizes, small, scratch, kept, rows, (column, slot))
            place = column, SLOTS * (position + 1) + slot
            _draw(me, weights, faces, sizes.D, sampling, scratch, rows, place)
            wait(scratch.barrier, me.num_threads)
    return SLOTS * span.num_steps

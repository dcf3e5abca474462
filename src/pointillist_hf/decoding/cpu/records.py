# SPDX-License-Identifier: Apache-2.0
"""What the decoding kernels are given: network, memory, sequences.

Legend of the short names:
    B, D, F        rows of the batch, width of the states, of the feed-forward network
    H, P, V        heads, width of a head, and of its stored values: the next multiple of LANES
    W, M           places of the window's ring, most conditioning tokens; multiples of CHUNK
    L2, D2, ...    layers, widths, heads of the depth head's small transformer

What the large transformer counts in, a step, is a token, or a point with the depth head.

numba's cache of `points` notices no edits in this file: delete `__pycache__` after one.
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import ndarray

from .rounding import Rounded

CHUNK = 256  # keys that a thread attends to at a time
SLOTS = 4  # tokens of a point, as in `models.tokenization_points`, which loads torch


class Worker(NamedTuple):
    """Who calls."""

    thread: int
    num_threads: int
    own: ndarray  # [B D] states that the thread works out for itself
    scores: ndarray  # [CHUNK]
    sums: ndarray  # [4 LANES]
    rounded: Rounded  # of what meets matrices, keys or values next, if they are rounded
    seen: ndarray  # [B] keys in the ring
    live: ndarray  # [B] rows that have not ended


class FlatInputs(NamedTuple):
    """What the transformer is fed, a token at a time."""

    embedding: ndarray  # [vocabulary D]
    slot_embedding: ndarray  # [4 D]


class DepthInputs(NamedTuple):
    """What both transformers of a depth head are fed, and its norms.

    Tokens meet these matrices at once, so their products stand ready: a row for each value of each
    slot, the slots one after the other.
    """

    offsets: ndarray  # [4] row of a slot's token, less its id
    start: ndarray  # [D] the large transformer's input before the first point
    points: ndarray  # [values D] a token's part of the large transformer's input
    tokens: ndarray  # [values of the first three slots, D2] of the small one's
    norms: ndarray  # [L2 2 D2]
    out_norm: ndarray  # [D]


class Weights(NamedTuple):
    """The network. How matrices are stored is told in `arithmetic`."""

    # Of the layers, then of the depth head, then of each slot's offsets, then the output.
    matrices: ndarray
    starts: ndarray  # [matrices]
    first_scales: ndarray  # [matrices]
    scales: ndarray  # [rows of all matrices] what a rounded row is multiplied by, otherwise 1
    norms: ndarray  # [layers 3 D]
    final_norm: ndarray  # [D]
    inputs: FlatInputs | DepthInputs


class Sizes(NamedTuple):
    """What the arrays measure."""

    layers: int
    B: int
    D: int
    F: int
    H: int
    P: int
    V: int
    W: int
    M: int
    window: int  # steps that are seen
    eps: float


class DepthSizes(NamedTuple):
    """What the small transformer measures."""

    L2: int
    D2: int
    F2: int
    H2: int
    first_matrix: int  # place of its matrices among all


class Store(NamedTuple):
    """Keys and values in blocks, one for each chunk of each head, in the order of attention.

    Matrices as `arithmetic` tells, so P is padded.
    """

    numbers: ndarray  # [layers R chunks H] blocks: keys [CHUNK, P], then values [V, CHUNK]
    scales: ndarray  # [layers R chunks H 2 CHUNK] of keys and values that are rounded
    rows: ndarray  # [B] where those of a sequence are among the R
    num_rows: int  # R; less than B where sequences share their conditioning


class Memory(NamedTuple):
    """What attention looks at."""

    own: Store  # the ring: W / CHUNK chunks
    cross: Store  # the conditioning: M / CHUNK chunks
    cross_lengths: ndarray  # [B]


class Scratch(NamedTuple):
    """What the threads write for each other."""

    hidden: ndarray  # [B D]; of either transformer, so as large as the larger one, like the next
    projected: ndarray  # [B 3 D] queries, keys, values
    gated: ndarray  # [B F]
    logits: ndarray  # [B vocabulary]
    partial: ndarray  # [B H chunks (V + 2)] sums of values, largest score, sum of weights
    barrier: ndarray  # [2] see `wait`


class DepthScratch(NamedTuple):
    """What the small transformer keeps of the point that is being emitted."""

    shared: ndarray  # [B D2] the point's part of its inputs
    keys: ndarray  # [L2 B H2] matrices of the first four rows alone, [LANES, P2]
    values: ndarray  # [L2 B 4 D2]
    states: ndarray  # [B D] its outputs


class Faces(NamedTuple):
    """The faces of R heads, which the rows' bindings are anchored on.

    The first four are those of `Weights`, with a matrix [faces, D] for each head. Tables of
    `DepthInputs` have the faces of all heads in the binding's slot, a head after the other.
    """

    matrices: ndarray
    starts: ndarray  # [R]
    first_scales: ndarray  # [R]
    scales: ndarray  # [R faces]
    heads: ndarray  # [B] which of the R is a row's
    shifts: ndarray  # [B 4] what is added to `DepthInputs.offsets`
    slot: int  # the binding's
    # Where bindings come first, tokens are also scored by how far they are from their anchor.
    reach: int  # on either side of it; 0 where they do not come first, and what follows is empty
    bins: ndarray  # [R faces 3] the faces' centres, in the order of the slots
    rests: ndarray  # [R faces D2] added to the small transformer's inputs
    biases: ndarray  # [4 (2 reach + 3)]
    near: ndarray  # [B (2 reach + 3)] room for what the offsets are worth


class Rows(NamedTuple):
    """Where the sequences stand, and what a call gives back."""

    tokens: ndarray  # [B, (steps + 1) tokens of a step] those of the first step are given
    states: ndarray  # [B, one less, D] final hidden states, from which the next token is drawn
    ended: ndarray  # [B]
    cosines: ndarray  # [steps P / 2]
    sines: ndarray  # [steps P / 2]


class Span(NamedTuple):
    """Which part of the sequences a call decodes."""

    position: int  # of the first step, in steps
    num_steps: int

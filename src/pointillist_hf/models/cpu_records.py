# SPDX-License-Identifier: Apache-2.0
"""What the decoding kernels are given: network, memory, sequences.

Legend of the short names:
    B, D, F        rows of the batch, width of the states, of the feed-forward network
    H, P           heads, width of a head
    W, M           places of the window's ring, most conditioning tokens; multiples of CHUNK
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import ndarray

CHUNK = 256  # keys that a thread attends to at a time


class Worker(NamedTuple):
    """Who calls."""

    thread: int
    num_threads: int
    own: ndarray  # [B D] states that the thread works out for itself
    scores: ndarray  # [CHUNK]
    seen: ndarray  # [B] keys in the ring
    live: ndarray  # [B] rows that have not ended


class Weights(NamedTuple):
    """The network. Matrices stand where the model has them, or where their copies are."""

    addresses: ndarray  # [layers NUM_MATRICES]
    scales: ndarray  # [layers NUM_MATRICES, most rows] what an int8 matrix is multiplied by
    norms: ndarray  # [layers 3 D]
    final_norm: ndarray  # [D]
    embedding: ndarray  # [vocabulary D]
    slot_embedding: ndarray  # [4 D]
    head: int  # address
    head_scales: ndarray  # [vocabulary]
    like: ndarray  # of the type of the matrices


class Sizes(NamedTuple):
    """What the arrays measure."""

    layers: int
    B: int
    D: int
    F: int
    H: int
    P: int
    W: int
    M: int
    window: int  # tokens that are seen
    eps: float


class Memory(NamedTuple):
    """Keys and values in chunks, a chunk of values being transposed so that both meet as dots."""

    keys: ndarray  # [layers B H W P], chunks of [CHUNK, P]
    values: ndarray  # [layers B H W P], chunks of [P, CHUNK]
    cross_keys: ndarray  # [layers B H M P]
    cross_values: ndarray  # [layers B H M P]
    cross_lengths: ndarray  # [B]


class Scratch(NamedTuple):
    """What the threads write for each other."""

    hidden: ndarray  # [B D]
    projected: ndarray  # [B 3 D] queries, keys, values
    gated: ndarray  # [B F]
    logits: ndarray  # [B vocabulary]
    partial: ndarray  # [B H chunks (P + 2)] sums of values, largest score, sum of weights
    barrier: ndarray  # [2] see `wait`


class Rows(NamedTuple):
    """Where the sequences stand, and what a call gives back."""

    tokens: ndarray  # [B, steps + 1] fed in this call; the first are given, and the prompt's
    states: ndarray  # [B, steps, D] final hidden states of these tokens
    ended: ndarray  # [B]
    cosines: ndarray  # [steps P / 2]
    sines: ndarray  # [steps P / 2]


class Span(NamedTuple):
    """Which part of the sequences a call decodes."""

    position: int  # of the first token that is fed
    num_steps: int
    prompt_length: int

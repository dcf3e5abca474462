# SPDX-License-Identifier: Apache-2.0
"""One generation by the compiled kernels: their memory and their calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from ...kernels.beside import wait_for_kernels
from ...models.modeling_point_generator import PointGeneratorForCausalLM
from ...models.point_generator_layers import rotary_embedding
from ...models.tokenization_points import TOKENS_PER_POINT, TokenLayout
from ..grammar import MAX_POINTS, PointGrammar
from ..guidance import count_streams
from ..sampling import SeededSampling
from .arithmetic import LANES, PADDING, round_up
from .faces import add_faces
from .layers import NUM_MATRICES
from .points import decode_points, decode_tokens
from .records import (
    CHUNK,
    DepthScratch,
    DepthSizes,
    Memory,
    Rows,
    Scratch,
    Sizes,
    Span,
    Store,
    Worker,
)
from .rounding import BLOCK, Rounded
from .sampling import WORDS, Draws, Rules
from .threads import ThreadCount, run_together
from .weights import (
    WeightFormat,
    allocate,
    group_rows,
    prepare_weights,
    store,
)

CALL_SECONDS = 0.05  # about as long the kernels run before Python looks up
WEIGHTS_PER_THREAD = 1 << 16  # of a layer; with fewer, threads wait more than they work


class CompiledDecoder:
    """Decodes clouds, piece by piece: one for each of B rows, or for two with guidance.

    Args:
        model: The generator; `find_obstacle` must have found none.
        encoder_hidden_states: [B, M, cross_attention_size]
        encoder_attention_mask: 0 at padded conditioning tokens. [B, M]
        rules: Grammar and sampling, from `build_rules`.
        seeds: One per cloud.
        weight_format: `WeightFormat`; keys and values are rounded like the weights, and float32 if
            these are exact.
        face_anchors: Heads that anchored bindings know the faces by. [B, F, 6 or more]
    """

    def __init__(
        self,
        model: PointGeneratorForCausalLM,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        *,
        rules: Rules,
        seeds: Sequence[int],
        weight_format: WeightFormat = "exact",
        face_anchors: Tensor | None = None,
    ) -> None:
        config, batch = model.config, len(encoder_hidden_states)
        self.model, self.rules = model, rules
        self.tokens_per_step = TOKENS_PER_POINT if config.point_head == "depth" else 1
        self.weights, self.faces = prepare_weights(model, weight_format), ()
        if face_anchors is not None:
            self.weights, *self.faces = add_faces(model, self.weights, face_anchors, weight_format)
        contexts = list(encoder_hidden_states.float())
        if encoder_attention_mask is not None:
            kept = encoder_attention_mask.bool()
            contexts = [context[row] for context, row in zip(contexts, kept, strict=True)]
        window = config.sliding_window // self.tokens_per_step
        longest = TOKENS_PER_POINT * (rules.max_points + 1) // self.tokens_per_step
        self.sizes = Sizes(
            layers=config.num_hidden_layers,
            B=batch,
            D=config.hidden_size,
            F=config.intermediate_size,
            H=config.num_attention_heads,
            P=config.head_dim,
            V=round_up(config.head_dim, LANES),
            W=round_up(min(window, longest), CHUNK),
            M=round_up(max(1, *map(len, contexts)), CHUNK),
            window=window,
            eps=config.rms_norm_eps,
        )
        self.depth = self._build_depth() if config.point_head == "depth" else None
        self.memory = self._build_memory(contexts, weight_format)
        self.scratch = self._build_scratch()
        self.draws = Draws(
            marks=np.zeros(len(seeds) * WORDS // 2, np.int32),
            points=np.zeros((len(seeds), 2, TOKENS_PER_POINT), np.int64),
            twister=np.concatenate([seed_twister(seed) for seed in seeds]),
            words=np.zeros((len(seeds), 2), np.int64),
            on_face=np.zeros(len(seeds), np.int64),
        )
        self.ended = np.zeros(batch, np.bool_)
        self.position = 0

    def _build_memory(self, contexts: list[Tensor], weight_format: WeightFormat) -> Memory:
        """An empty ring, and the keys and values of the conditioning."""
        s = self.sizes
        # Avatars of one portrait have the same conditioning, which is kept once.
        rows = _find_first_equal(contexts)
        first_rows = sorted(set(rows))
        shape = (s.layers, len(first_rows), s.H, s.M, s.P)
        keys, values = torch.zeros(shape), torch.zeros(shape)
        for i, layer in enumerate(self.model.model.layers):
            attention = layer.cross_attn
            for matrix, target in ((attention.k_proj, keys), (attention.v_proj, values)):
                weight = matrix.weight.detach().float()
                for row, context in enumerate(contexts[b] for b in first_rows):
                    projected = nn.functional.linear(context, weight)
                    heads = projected.unflatten(1, (s.H, s.P)).transpose(0, 1)
                    target[i, row, :, : len(context)] = heads
        numbers, scales = _build_blocks(keys, values, weight_format)
        blocks = s.layers * s.B * (s.W // CHUNK) * s.H
        own = Store(
            allocate(blocks * (round_up(s.P, PADDING) + s.V) * CHUNK, numbers.dtype),
            np.zeros(blocks * 2 * CHUNK if len(scales) else 0, np.float32),
            np.arange(s.B),
            s.B,
        )
        places = np.array([first_rows.index(row) for row in rows])
        cross = Store(numbers, scales, places, len(first_rows))
        lengths = np.array([len(context) for context in contexts])
        return Memory(own, cross, lengths)

    def _build_scratch(self) -> Scratch:
        s, chunks = self.sizes, max(self.sizes.W, self.sizes.M) // CHUNK
        width, inner = s.D, s.F
        if self.depth is not None:
            width, inner = max(width, self.depth[0].D2), max(inner, self.depth[0].F2)

        def build(size: int) -> ndarray:
            return np.zeros(s.B * size, np.float32)

        return Scratch(
            hidden=build(width),
            projected=build(3 * width),
            gated=build(inner),
            logits=build(self.rules.vocabulary),
            partial=build(s.H * chunks * (s.V + 2)),
            barrier=np.zeros(2, np.int64),
        )

    def _build_depth(self) -> tuple[DepthSizes, DepthScratch]:
        """Sizes and memory of the depth head."""
        config, (B, D) = self.model.config, (self.sizes.B, self.sizes.D)
        sizes = DepthSizes(
            L2=config.depth_num_hidden_layers,
            D2=config.depth_hidden_size,
            F2=config.depth_intermediate_size,
            H2=config.depth_num_attention_heads,
            first_matrix=NUM_MATRICES * config.num_hidden_layers,
        )
        kept = sizes.L2 * B * TOKENS_PER_POINT * sizes.D2
        counts = (B * sizes.D2, sizes.L2 * B * sizes.D2 * LANES, kept, B * D)
        return sizes, DepthScratch(*(np.zeros(count, np.float32) for count in counts))

    def _build_workers(self) -> list[Worker]:
        """As many as torch has threads, if there is work for them."""
        s = self.sizes
        weights = 6 * s.D * s.D + 3 * s.D * s.F
        if self.depth is not None:
            small = self.depth[0]
            weights = max(weights, 4 * small.D2 * small.D2 + 3 * small.D2 * small.F2)
        num_threads = max(1, min(torch.get_num_threads(), weights // WEIGHTS_PER_THREAD))
        return [
            Worker(
                thread,
                num_threads,
                own=np.zeros_like(self.scratch.hidden),
                scores=np.zeros(CHUNK, np.float32),
                sums=np.zeros(4 * LANES, np.float32),
                rounded=self._build_rounded(),
                seen=np.zeros(s.B, np.int64),
                live=np.zeros(s.B, np.int64),
            )
            for thread in range(num_threads)
        ]

    def _build_rounded(self) -> Rounded:
        """Room for the states of all rows, or for the weights of a chunk of values."""
        widths = len(self.scratch.hidden), len(self.scratch.gated)
        count = max(round_up(max(widths) // self.sizes.B, BLOCK) * self.sizes.B, CHUNK)
        return Rounded(
            numbers=np.zeros(count, np.int8),
            scales=np.zeros(count // BLOCK, np.float32),
            offsets=np.zeros(count // BLOCK, np.int32),
        )

    def decode(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of the sequences, until all rows have ended.

        Yields:
            Of each cloud's first row, tokens as they were drawn, padding after the end [., T];
            final hidden states of the tokens that were fed: the prompt's, then the drawn ones'.
            [., steps, D]
        """
        wait_for_kernels()
        layout, workers = self.model.config.layout, self._build_workers()
        last = np.full((self.sizes.B, self.tokens_per_step), layout.bos_token_id)
        points, threads = 4, ThreadCount(len(workers))
        with ThreadPoolExecutor(len(workers), "decode") as pool:
            while not self.ended.all():
                count, is_trial = threads.choose()
                rows = self._build_rows(1 if is_trial else points, last)
                start = time.perf_counter()
                chosen = [worker._replace(num_threads=count) for worker in workers[:count]]
                done = self._run(pool, chosen, rows)
                seconds = time.perf_counter() - start
                threads.learn(count, seconds / done)
                yield self._read(rows, done)
                self.position += -(-done // self.tokens_per_step)
                last = rows.tokens[:, done : done + self.tokens_per_step]
                if not is_trial:
                    points = int(CALL_SECONDS * done / seconds) // TOKENS_PER_POINT
                    points = min(max(points, 1), 256)

    def _build_rows(self, points: int, last: ndarray) -> Rows:
        """Room for what the steps of so many points give, after the last tokens."""
        s, layout, size = self.sizes, self.model.config.layout, self.tokens_per_step
        steps = points * TOKENS_PER_POINT // size
        tokens = np.full((s.B, size * (steps + 1)), layout.pad_token_id)
        tokens[:, : max(TOKENS_PER_POINT - self.position * size, 0)] = layout.bos_token_id
        tokens[:, :size] = last
        states = np.zeros((s.B, tokens.shape[1] - 1, s.D), np.float32)
        positions = torch.arange(self.position, self.position + steps)
        turns = rotary_embedding(positions[None], self.model.config, torch.float32)
        cosines, sines = (turn.reshape(-1).numpy() for turn in turns)
        return Rows(tokens, states, self.ended, cosines, sines)

    def _read(self, rows: Rows, done: int) -> tuple[Tensor, Tensor]:
        """What `decode` yields of a call in which so many tokens became known."""
        size = self.tokens_per_step
        # The first of them may be the prompt's. Nobody asks for states within the prompt's point,
        # and the depth head leaves them at zero; within later first steps they are known already.
        given = max(TOKENS_PER_POINT - self.position * size, size)
        known = size - 1 if self.position else 0
        streams = self.rules.num_streams
        return (
            torch.from_numpy(rows.tokens[::streams, given : done + size]),
            torch.from_numpy(rows.states[::streams, known : done + size - 1]),
        )

    def _run(self, pool: ThreadPoolExecutor, workers: list[Worker], rows: Rows) -> int:
        """Calls the kernel on all threads; the number of tokens that became known."""
        self.scratch.barrier[:] = 0
        span = Span(self.position, len(rows.cosines) // (self.sizes.P // 2))
        shared = self.sizes, self.memory, self.scratch, rows, (self.rules, self.draws), span

        def work(worker: Worker) -> int:
            if self.depth is not None:
                return decode_points(worker, self.weights, *shared, self.depth, *self.faces)
            return decode_tokens(worker, self.weights, *shared)

        return run_together(pool, [lambda w=w: work(w) for w in workers], self.scratch.barrier)


def _build_blocks(
    keys: Tensor, values: Tensor, weight_format: WeightFormat
) -> tuple[ndarray, ndarray]:
    """Numbers and scales of a `Store`, of keys and values [layers, R, H, M, P]."""
    blocks, scales = [], []
    for rows in (keys, values):
        numbers, factors = store(rows, weight_format)
        blocks.append(_split_into_chunks(numbers))
        scales.append(_split_into_chunks(factors))
    blocks[1] = blocks[1].swapaxes(-1, -2)
    grouped = [group_rows(block) for block in blocks]
    joined = np.concatenate([group.reshape(*group.shape[:4], -1) for group in grouped], axis=-1)
    numbers = allocate(joined.size, joined.dtype)
    numbers[:] = joined.reshape(-1)
    if weight_format != "int8":
        return numbers, np.zeros(0, np.float32)
    return numbers, np.stack(scales, axis=4).reshape(-1)


def _split_into_chunks(rows: ndarray) -> ndarray:
    """[layers, R, H, M, ...] as [layers, R, chunks, H, CHUNK, ...]."""
    layers, R, H, _, *rest = rows.shape
    return rows.reshape(layers, R, H, -1, CHUNK, *rest).swapaxes(2, 3)


def _find_first_equal(contexts: list[Tensor]) -> list[int]:
    """For each of them the first that equals it."""
    return [
        next(i for i in range(row + 1) if i == row or torch.equal(context, contexts[i]))
        for row, context in enumerate(contexts)
    ]


def seed_twister(seed: int) -> ndarray:
    """State of torch's CPU generator after `manual_seed`. [WORDS]"""
    words = [seed & 0xFFFFFFFF]
    for i in range(1, WORDS):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) & 0xFFFFFFFF)
    return np.array(words, np.uint32)


def build_rules(
    layout: TokenLayout,
    grammar: PointGrammar,
    sampling: SeededSampling,
    guidance_scale: float = 1.0,
) -> Rules:
    """Grammar, sampling and guidance as the kernels read them."""
    ranges = np.array([layout.slot_range(slot) for slot in range(TOKENS_PER_POINT)])
    return Rules(
        firsts=ranges[:, 0].copy(),
        counts=ranges[:, 1] - ranges[:, 0],
        ranks=np.array([layout.sort_key.index(axis) for axis in layout.token_order]),
        num_sorted=grammar.num_sorted,
        has_every_face=grammar.has_every_face,
        num_plain_slots=grammar.num_plain_slots,
        min_points=grammar.min_points,
        max_points=grammar.max_points,
        max_points_per_face=grammar.max_points_per_face or MAX_POINTS,
        end=layout.eos_token_id,
        vocabulary=layout.vocab_size,
        temperature=float(sampling.temperature),
        log_min_p=torch.tensor(float(sampling.min_p)).log().item(),
        guidance_scale=float(guidance_scale),
        num_streams=count_streams(guidance_scale),
    )

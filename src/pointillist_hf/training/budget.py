# SPDX-License-Identifier: Apache-2.0
"""What a run of the generator takes, on paper: work, hours and memory (paper Sec. 4.4.1).

Counted are products of matrices, a multiplication and an addition being two operations, of layers
that are computed twice in the forward direction (`gradient_checkpointing`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry.number_checks import check_integer
from ..models.configuration_point_generator import PointGeneratorConfig

PASSES, PASSES_OF_HEAD = 4, 3  # forward, again, and twice as much backward
# Of a trained weight: itself, its gradient, and Adam's two moments, in float32.
BYTES_OF_WEIGHT, BYTES_OF_SUM, BYTES_OF_HALF = 16, 4, 2
NUM_CONTEXT = 1370 + 257  # tokens of DINOv2 at 518 pixels, and of Michelangelo
PEAKS = {"A100": 312e12, "H100": 989e12, "H20": 148e12}  # dense bfloat16 operations per second


@dataclass(frozen=True)
class Budget:
    """Of a run, and of each GPU.

    Args:
        num_weights: Of the generator.
        num_tokens: That the run computes.
        operations: Of the run.
        hours: Of the run.
        tokens_per_second: Of a GPU.
        weight_bytes: Weights, gradients and the optimizer's state, on a GPU.
        activation_bytes: What is kept for the backward pass, and one layer's own, on a GPU.
        logit_bytes: Scores of the tokens with their gradient, on a GPU.
    """

    num_weights: int
    num_tokens: int
    operations: float
    hours: float
    tokens_per_second: float
    weight_bytes: float
    activation_bytes: float
    logit_bytes: float


def estimate_generator(
    config: PointGeneratorConfig,
    gpu: str,
    num_gpus: int,
    *,
    utilisation: float = 0.45,
    num_steps: int = 50_000,
    rows_of_step: int = 64,
    rows_at_once: int = 4,
    is_sharded: bool = True,
) -> Budget:
    """The budget of a run with the flat head; by default, of the paper's.

    Args:
        config: Of the generator; its window is the length of a row.
        gpu: One of `PEAKS`.
        num_gpus: That share the rows of a step.
        utilisation: Share of the peak that is reached.
        num_steps: Of the run.
        rows_of_step: On all GPUs.
        rows_at_once: That a GPU computes at a time.
        is_sharded: Whether weights, gradients and moments are shared out (FSDP2).

    Raises:
        ValueError: There is no such GPU, or no GPU.
    """
    if gpu not in PEAKS:
        raise ValueError(f"`gpu` must be one of {', '.join(PEAKS)}, got {gpu!r}.")
    check_integer("num_gpus", num_gpus, 1, 100_000)
    num_tokens = num_steps * rows_of_step * config.sliding_window
    operations = num_tokens * operations_per_token(config)
    tokens = rows_at_once * config.sliding_window
    width, vocabulary = config.hidden_size, config.layout.vocab_size
    kept = BYTES_OF_SUM * width * config.num_hidden_layers
    of_layer = BYTES_OF_HALF * (10 * width + 4 * config.intermediate_size)
    num_weights = count_weights(config)
    seconds = operations / (utilisation * PEAKS[gpu] * num_gpus)
    return Budget(
        num_weights=num_weights,
        num_tokens=num_tokens,
        operations=operations,
        hours=seconds / 3600,
        tokens_per_second=num_tokens / seconds / num_gpus,
        weight_bytes=BYTES_OF_WEIGHT * num_weights / (num_gpus if is_sharded else 1),
        activation_bytes=tokens * (kept + of_layer),
        # In float32 and as they come, in half precision, and the gradient of the former.
        logit_bytes=tokens * vocabulary * (2 * BYTES_OF_SUM + BYTES_OF_HALF),
    )


def count_weights(config: PointGeneratorConfig) -> int:
    """Of the generator with the flat head and free bindings."""
    width, vocabulary = config.hidden_size, config.layout.vocab_size
    context = config.cross_attention_size or width
    attention = 4 * width**2 + 2 * width**2 + 2 * width * context
    layer = attention + 3 * width * config.intermediate_size + 3 * width
    slots_and_norm = (4 + 1) * width
    tables = 1 if config.tie_word_embeddings else 2
    return config.num_hidden_layers * layer + tables * vocabulary * width + slots_and_norm


def operations_per_token(config: PointGeneratorConfig) -> float:
    """All passes over a row, shared among its tokens."""
    width, window = config.hidden_size, config.sliding_window
    context = config.cross_attention_size or width
    weights = 6 * width**2 + 3 * width * config.intermediate_size
    # A token looks at half of its row on average, and at all of the conditioning.
    looking = 2 * width * (window / 2 + NUM_CONTEXT)
    of_context = 2 * width * context * NUM_CONTEXT / window
    layers = config.num_hidden_layers * (weights + looking + of_context)
    head = width * config.layout.vocab_size
    return 2 * (PASSES * layers + PASSES_OF_HEAD * head)

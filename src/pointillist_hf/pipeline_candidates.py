# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Several clouds are drawn of a portrait, and the one that fits it best is kept.

What a conditioner foresees of a cloud, its layout, is nearer to the truth than what a small
generator draws: sampling strays. Beyond the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .decoding.generation import PointGenerationOutput
from .geometry.number_checks import MAX_SEED, check_integer
from .geometry.structures import RigParams
from .models.sequence_layout import count_sequence_layout
from .models.tokenization_points import TOKENS_PER_POINT, PointTokenizer
from .rigs.cloud_layout import compare_layouts
from .rigs.head_rig import HeadRig

MAX_CANDIDATES = 64  # of an avatar
# Between the seeds of candidates: avatars of neighbouring seeds share none.
SEED_STRIDE = 1_000_003_000_001


def check_candidates(
    num_candidates: object, rig_params: RigParams | None, layouts: Tensor | None
) -> None:
    """Refuses candidates that nothing tells apart.

    Raises:
        ValueError: The number is none, or there are several and no layouts or heads.
    """
    count = check_integer("num_candidates", num_candidates, 1, MAX_CANDIDATES)
    if count > 1 and (rig_params is None or layouts is None):
        raise ValueError(
            f"`num_candidates` must be 1 without `layouts` and `rig_params`, got {count}. Take "
            "those of `encode_image`, of a conditioner with a `layout_size`."
        )


def candidate_seeds(seeds: Sequence[int], num_candidates: int) -> list[int]:
    """The seeds of the candidates of each cloud, the first one having the cloud's own."""
    return [
        (seed + SEED_STRIDE * i) % (MAX_SEED + 1) for seed in seeds for i in range(num_candidates)
    ]


def choose_candidates(
    output: PointGenerationOutput,
    layouts: Tensor,
    betas: Tensor,
    *,
    tokenizer: PointTokenizer,
    rig: HeadRig,
) -> PointGenerationOutput:
    """Of the candidates of each cloud, the one whose layout is nearest to what was foreseen.

    Args:
        output: The candidates of each cloud, one after the other. B times as many rows
        layouts: Foreseen. [B, L, L^2]
        betas: Of the heads. [B, S]
        tokenizer: Of the tokens.
        rig: Of the bindings.

    Returns:
        B rows.
    """
    num_candidates = len(output.input_ids) // len(layouts)
    kept = []
    for row, (wanted, head) in enumerate(zip(layouts, betas, strict=True)):
        own = range(row * num_candidates, (row + 1) * num_candidates)
        sequences = output.input_ids[own.start : own.stop].to(head.device)
        counts = [
            count_sequence_layout(ids, tokenizer, rig, head, len(wanted)) for ids in sequences
        ]
        distances = compare_layouts(torch.stack(counts), wanted.to(head))
        kept.append(own[int(distances.argmin())])
    most = int(output.num_points[kept].max())
    return PointGenerationOutput(
        output.input_ids[kept, : TOKENS_PER_POINT * (most + 2)],
        output.token_hidden_states[kept, :most],
        output.num_points[kept],
        output.is_finished[kept],
    )

# SPDX-License-Identifier: Apache-2.0
"""How the next token is drawn: every row from a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ..geometry.number_checks import check_number
from ..models.tokenization_points import TOKENS_PER_POINT

# Scores divided by more are all alike, and by less than the inverse overflow.
MAX_TEMPERATURE = 1e6


class SeededSampling(LogitsProcessor):
    """Draws by argmax: scores plus Gumbel noise from one random stream per row.

    A row's draws depend on its own stream only, so an avatar does not change with its neighbours
    in a batch, and the global random state is left alone. Use with `do_sample=False`.

    Args:
        generators: One per row.
        temperature: Divides the scores; 0 is greedy.
        min_p: Tokens less likely than this share of the likeliest are cut off first.
        num_plain_slots: So many slots of each point, from the first one on, are drawn as the scores
            say, without temperature and `min_p`, unless all is greedy.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        *,
        temperature: float = 1.0,
        min_p: float = 0.0,
        num_plain_slots: int = 0,
    ) -> None:
        self.generators = generators
        self.temperature = check_number("temperature", temperature, 0, MAX_TEMPERATURE)
        self.min_p = check_number("min_p", min_p, 0, 1)
        self.num_plain_slots = num_plain_slots

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores whose argmax is a draw. [B, L], [B, V] -> [B, V]"""
        if self.temperature == 0:
            return scores
        is_plain = False
        if self.num_plain_slots:
            is_plain = input_ids.shape[1] % TOKENS_PER_POINT < self.num_plain_slots
        logits = scores.float() / (1 if is_plain else self.temperature)
        if self.min_p > 0 and not is_plain:
            threshold = logits.amax(-1, keepdim=True) + torch.tensor(self.min_p).log().item()
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        # Float64, because torch makes these numbers alike in all its builds; `cpu.sampling`
        # makes them as well.
        rows = [
            torch.rand(
                scores.shape[1], dtype=torch.float64, device=generator.device, generator=generator
            )
            for generator in self.generators
        ]
        exponential = -torch.log1p(-torch.stack(rows))
        # The logarithm of an exponential variable is minus a Gumbel one.
        return logits - exponential.to(logits).log()

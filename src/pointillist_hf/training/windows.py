# SPDX-License-Identifier: Apache-2.0
"""Windows of whole points cut from long sequences (paper Sec. 4.4.1 and 5.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.slot_heads import IGNORED
from ..models.tokenization_points import TOKENS_PER_POINT, TokenLayout

# Share of windows at either end of a sequence. Otherwise a long sequence shows its start and its
# end, one token each, too rarely to learn when a cloud ends.
END_SHARE = 1 / 8


def window_starts(length: int, window: int, step: int) -> list[int]:
    """First tokens of the windows of a sequence, `step` apart, until one reaches its end.

    Args:
        length: Tokens of the sequence.
        window: Tokens of a window.
        step: A multiple of four, at most the window.
    """
    if step % TOKENS_PER_POINT or not 0 < step <= window:
        raise ValueError(
            f"`window_step` must be a multiple of 4 from 4 to the window ({window}), got {step}."
        )
    return list(range(0, max(length - window, 0) + step, step))


def scoring_windows(length: int, window: int) -> list[tuple[int, int]]:
    """Windows half a window apart, and the first token that each of them scores.

    Each token is scored once, by the first window that has it: after at least half a window of
    earlier ones, or after all of them.
    """
    step = max(window // 2 // TOKENS_PER_POINT, 1) * TOKENS_PER_POINT
    starts = window_starts(length, window, step)
    return [(start, start and start + window - step) for start in starts]


def window_start(length: int, window: int, generator: torch.Generator, step: int = 0) -> int:
    """First token of a random window, a multiple of four.

    Args:
        length: Tokens of the sequence.
        window: Tokens of a window.
        generator: Random stream.
        step: Tokens between windows, as the paper slides them; 0 lets them begin at any point, the
            two ends more often.
    """
    if step:
        starts = window_starts(length, window, step)
        return starts[int(torch.randint(len(starts), (), generator=generator))]
    last = max(length - window, 0) // TOKENS_PER_POINT
    place = float(torch.rand((), generator=generator))
    if place < END_SHARE:
        return 0
    if place >= 1 - END_SHARE:
        return last * TOKENS_PER_POINT
    return int(torch.randint(last + 1, (), generator=generator)) * TOKENS_PER_POINT


def focused_start(
    is_there: Tensor, length: int, window: int, generator: torch.Generator, share: float
) -> int:
    """First token of a random window, of a given share of which a certain point is anywhere in it.

    Args:
        is_there: Points of the sequence, one of which is drawn. [N]
        length: Tokens of the sequence.
        window: Tokens of a window.
        generator: Random stream.
        share: Of the windows that are drawn so.
    """
    places = is_there.nonzero()[:, 0]
    draws = torch.rand(3, generator=generator)
    if not len(places) or float(draws[0]) >= share:
        return window_start(length, window, generator)
    # The start tokens stand before the first point.
    point = int(places[int(draws[1] * len(places))]) + 1
    first = point - int(draws[2] * (window // TOKENS_PER_POINT))
    last = max(length - window, 0) // TOKENS_PER_POINT
    return min(max(first, 0), last) * TOKENS_PER_POINT


def cut_window(
    input_ids: Tensor, start: int, window: int, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """One window with its labels, padded to full length.

    Only what the grammar leaves open is a label: not the start tokens, and of the four end tokens
    only the first.

    Args:
        input_ids: A whole sequence. [L]
        start: A multiple of four.
        window: Tokens, a multiple of four.
        layout: The vocabulary.

    Returns:
        Ids [window] and labels [window], -100 where there is nothing to learn.
    """
    ids = input_ids[start : start + window]
    labels = ids.clone()
    labels[ids == layout.bos_token_id] = IGNORED
    ends = ids == layout.eos_token_id
    slots = torch.arange(len(ids)) % TOKENS_PER_POINT
    labels[ends & (slots > 0)] = IGNORED
    missing = window - len(ids)
    return (
        torch.nn.functional.pad(ids, (0, missing), value=layout.pad_token_id),
        torch.nn.functional.pad(labels, (0, missing), value=IGNORED),
    )

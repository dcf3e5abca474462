# SPDX-License-Identifier: Apache-2.0
"""Which token may follow: a cloud is a list of points, sorted if wished, with an end."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ..geometry.number_checks import check_integer
from ..models.tokenization_points import TOKENS_PER_POINT, TokenLayout

MAX_POINTS = 2**22  # of a cloud; forty times the densest fits

GrammarLevel = Literal[
    "types",  # every slot holds its kind of token, and a cloud ends where a point may start
    "full",  # also: the points come in the order of the tokenizer
    # For clouds whose bindings come first ("byzx"). Within a face, points come in any order: one
    # that lies a bin too high then pushes nothing.
    "faces",  # as "types", and the faces come in their order
    # As "faces", and no face is left out, as in data with `own_every_face`. Whether a point is on
    # the face of the last one or on the next is drawn as the network says: where a face gets about
    # thirty points, each of them is the last with a chance of one in thirty. `min_p` = 0.05 would
    # take that chance away, and a temperature of 0.85 would nearly double the points. So is the
    # coordinate after it, which decides whether a point lies on the skin or stands off it: a beard
    # begins in one of many bins, of which none is likely, and `min_p` would shave everybody.
    "every_face",
]
PLAIN_SLOTS = 2  # of "every_face": the binding and what comes next
# Axes of the sort key, from the first one on, in whose order points come.
SORTED_AXES: dict[GrammarLevel, int] = {"types": 0, "full": 4, "faces": 1, "every_face": 1}


class PointGrammar(LogitsProcessor):
    """Forbids the tokens that cannot continue a valid cloud; every allowed one can be completed.

    The values allowed in a slot are an interval [low, last]: the low end is the smallest value
    with which the point can still end up at or above the previous one in the sort key. With
    "every_face" the last value is the face after the previous one, and the low end rises where the
    points left are just enough for the faces left.

    Where faces come in their order, a face gets at most `max_points_per_face`. A generator that has
    learned little does not know when a face has enough, and each point is drawn as if it were the
    first: without a bound, some faces would go on for hundreds.

    Args:
        layout: The vocabulary.
        level: `GrammarLevel`.
        min_points: A cloud may not end before it has so many points.
        max_points: A cloud must end when it has so many points, even if faces are left.
        max_points_per_face: Of a face, with "faces" and "every_face"; None sets no bound.
    """

    def __init__(
        self,
        layout: TokenLayout,
        *,
        level: GrammarLevel = "types",
        min_points: int = 1,
        max_points: int | None = None,
        max_points_per_face: int | None = None,
    ) -> None:
        if level not in SORTED_AXES:
            raise ValueError(f"`grammar` must be one of {', '.join(SORTED_AXES)}, got {level!r}.")
        self.has_every_face, self.num_sorted = level == "every_face", SORTED_AXES[level]
        if "face" in level and layout.sort_key[0] != "b":
            raise ValueError(
                f"`grammar` {level!r} wants points that are sorted by their bindings, but "
                f"`token_order` is {layout.token_order!r}. Take 'types' or 'full'."
            )
        min_points = check_integer("min_points", min_points, 0, MAX_POINTS)
        if max_points is not None:
            max_points = check_integer("max_points", max_points, 1, MAX_POINTS)
            if max_points < min_points:
                raise ValueError(
                    "`max_points` must be at least 1 and at least `min_points`, "
                    f"got {max_points} and {min_points}."
                )
        if max_points_per_face is not None:
            check_integer("max_points_per_face", max_points_per_face, 1, MAX_POINTS)
        self.layout, self.level = layout, level
        self.min_points, self.max_points = min_points, max_points
        self.max_points_per_face = max_points_per_face if "face" in level else None

    @property
    def num_plain_slots(self) -> int:
        """The first slots of a point that are drawn as the network says, see `SeededSampling`."""
        return PLAIN_SLOTS if self.has_every_face else 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets the scores of forbidden tokens to minus infinity. [B, L], [B, V] -> [B, V]"""
        return scores.masked_fill(~self.allowed(input_ids), -torch.inf)

    def allowed(self, input_ids: Tensor) -> Tensor:
        """Which token may come next in each row, all rows being equally long.

        Args:
            input_ids: Sequences so far, from their first start token. [B, L]

        Returns:
            Booleans. [B, V]
        """
        layout = self.layout
        done = input_ids.shape[1] - TOKENS_PER_POINT
        num_points, slot = divmod(done, TOKENS_PER_POINT)
        low, end = layout.slot_range(slot)
        ids = torch.arange(layout.vocab_size, device=input_ids.device)
        lowest, stop = ids.new_zeros(len(input_ids)), ids.new_full((len(input_ids),), end - low)
        rank = layout.sort_key.index(layout.token_order[slot])
        if num_points and rank < self.num_sorted:
            lowest = self._lowest(input_ids, slot)
        may_end = torch.full_like(lowest, num_points >= self.min_points, dtype=torch.bool)
        if slot == 0 and self.has_every_face:
            lowest, stop = self._bound_faces(input_ids, num_points)
            may_end &= input_ids[:, -TOKENS_PER_POINT] == end - 1
        if slot == 0 and self._may_be_full(num_points):
            lowest = self._leave_full_faces(input_ids, lowest)
        if slot == 0 and num_points == self.max_points:
            lowest = stop  # nothing but the end is left
        allowed = (ids >= low + lowest[:, None]) & (ids < low + stop[:, None])
        if slot == 0:
            allowed[:, layout.eos_token_id] = may_end | (lowest >= stop)
        finished = (input_ids == layout.eos_token_id).any(1)
        padding = ids == layout.pad_token_id
        return torch.where(finished[:, None], padding, allowed)

    def _lowest(self, input_ids: Tensor, slot: int) -> Tensor:
        """Smallest value of the slot, counted from its first id, that keeps the order. [B]"""
        layout = self.layout
        start = input_ids.shape[1] - slot
        firsts = [layout.slot_range(s)[0] for s in range(TOKENS_PER_POINT)]
        tops = [layout.slot_range(s)[1] - layout.slot_range(s)[0] - 1 for s in range(4)]
        previous, current = {}, {}
        for s, name in enumerate(layout.token_order):
            previous[name] = input_ids[:, start - TOKENS_PER_POINT + s] - firsts[s]
            # A value still to come may be as large as its slot allows.
            given = input_ids[:, start + s] - firsts[s] if s < slot else None
            current[name] = torch.full_like(previous[name], tops[s]) if given is None else given
        key = layout.sort_key
        position = key.index(layout.token_order[slot])
        before, name, after = key[:position], key[position], key[position + 1 : self.num_sorted]
        above = _compare(previous, current, before) > 0
        repeats = _compare(previous, current, after) >= 0  # the same value again can be completed
        lowest = previous[name] + (~repeats).long()
        return lowest.masked_fill(above, 0)

    def _bound_faces(self, input_ids: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
        """First face, and one past the last, with which no face is left out. [B], [B]"""
        count, none = self.layout.num_faces, input_ids.new_full((len(input_ids),), -1)
        first = self.layout.binding_offset
        previous = input_ids[:, -TOKENS_PER_POINT] - first if num_points else none
        last = (previous + 1).clamp(max=count - 1)
        lowest = previous.clamp(min=0)
        if self.max_points is not None:
            lowest = lowest.clamp(min=count - (self.max_points - num_points)).minimum(last)
        return lowest, last + 1

    def _may_be_full(self, num_points: int) -> bool:
        return self.max_points_per_face is not None and num_points >= self.max_points_per_face

    def _leave_full_faces(self, input_ids: Tensor, lowest: Tensor) -> Tensor:
        """First face, with that of the last points passed over where it has its most. [B]"""
        faces = input_ids[:, TOKENS_PER_POINT::TOKENS_PER_POINT]
        last = faces[:, -self.max_points_per_face :]
        is_full = (last == last[:, -1:]).all(1)
        after = last[:, -1] - self.layout.binding_offset + 1
        return torch.where(is_full, torch.maximum(lowest, after), lowest)


def _compare(previous: dict[str, Tensor], current: dict[str, Tensor], names: str) -> Tensor:
    """Lexicographic comparison of two points on some axes: 1 current is larger, 0 equal, -1. [B]"""
    result = torch.zeros_like(previous["y"])
    for name in names:
        result = torch.where(result == 0, (current[name] - previous[name]).sign(), result)
    return result

# SPDX-License-Identifier: Apache-2.0
"""How many points of a cloud a data set has on one face, at most."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...models.tokenization_points import TOKENS_PER_POINT, TokenLayout
from .dataset import Rows

ROWS_AT_ONCE = 64


def read_clouds(rows: Rows) -> Iterable[np.ndarray]:
    """The token ids of each row, without a look at its pictures: thousands a second. [4 (N + 2)]"""
    for batch in rows.select_columns(["input_ids"]).with_format("numpy").iter(ROWS_AT_ONCE):
        yield from batch["input_ids"]


def find_most_per_face(clouds: Iterable[np.ndarray], layout: TokenLayout) -> int:
    """The most points that a face owns in any of the clouds.

    Args:
        clouds: Token ids, from the four starts to the four ends. [4 (N + 2)]
        layout: Of the tokenizer that wrote them.
    """
    slot, most = layout.slot_of("b"), 0
    for input_ids in clouds:
        bindings = np.asarray(input_ids).reshape(-1, TOKENS_PER_POINT)[1:-1, slot]
        if len(bindings):
            most = max(most, int(np.bincount(bindings - layout.binding_offset).max()))
    return most

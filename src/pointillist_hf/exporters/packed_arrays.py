# SPDX-License-Identifier: Apache-2.0
"""Tables of numbers in few bytes: whole steps, differences down the columns, zlib.

A table holds rows of the same length. The bytes of its entries lie in planes, all lowest bytes
first, and in a plane column after column; what changes little from row to row compresses well.
`viewer/unpack.js` is the other half.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy import ndarray

LARGEST = 2**30  # steps; a difference of two such numbers still fits in four bytes


class TableEntry(TypedDict):
    """What a reader must know of a table; tables follow each other in the order of the entries."""

    name: str
    rows: int
    columns: int
    width: int  # bytes per number
    step: float  # what 1 stands for


def pack_tables(
    tables: Mapping[str, ndarray], steps: Mapping[str, float]
) -> tuple[bytes, list[TableEntry]]:
    """The tables in one compressed piece, and the entries to read it by.

    Args:
        tables: Finite numbers by name. [R, C] each
        steps: Of each name. A number comes back as the nearest multiple of its step; where a table
            holds more than 2^30 steps, as that of the smallest step that does.
    """
    packed = {name: _pack(table, steps[name]) for name, table in tables.items()}
    body = zlib.compress(b"".join(planes for planes, _ in packed.values()), 9)
    entries = [
        TableEntry(name=name, rows=table.shape[0], columns=table.shape[1], **packed[name][1])
        for name, table in tables.items()
    ]
    return body, entries


def _pack(table: ndarray, step: float) -> tuple[bytes, dict[str, float]]:
    """The planes, and width and step."""
    table = table.astype(np.float64)
    step = max(step, float(np.abs(table).max(initial=0)) / LARGEST)
    numbers = np.rint(table / step).astype(np.int64)
    bits = int(np.abs(numbers).max(initial=0)).bit_length() + 1
    width = -(-bits // 8)
    # Differences may need a bit more; sums are taken modulo 2^(8 width), so that it can be lost.
    differences = np.diff(numbers, axis=0, prepend=0).T
    planes = [(differences >> 8 * place).astype(np.uint8).tobytes() for place in range(width)]
    return b"".join(planes), {"width": width, "step": step}

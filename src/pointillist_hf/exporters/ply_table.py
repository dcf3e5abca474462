# SPDX-License-Identifier: Apache-2.0
"""Tables in .ply files: the element `vertex`, a number per column, binary.

Files of others hold more: elements before and after it, and lists. Those are passed over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from .atomic_file import write_atomically
from .ply_header import Element, read_elements, split_header


def write_table(columns: dict[str, ndarray], path: str | Path) -> None:
    """Writes columns of the same length, in their order, as float32."""
    rows = np.stack(list(columns.values()), axis=-1).astype("<f4")
    properties = "".join(f"property float {name}\n" for name in columns)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n"
        f"{properties}end_header\n"
    )
    data = header.encode("ascii") + rows.tobytes()
    write_atomically(path, lambda partial: partial.write_bytes(data))


def read_table(path: str | Path) -> dict[str, ndarray]:
    """The columns by name, float32.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no table of this kind, or is cut off.
    """
    data = Path(path).read_bytes()
    lines, start = split_header(data, path)
    elements = read_elements(lines, path)
    names = [element.name for element in elements]
    if names.count("vertex") != 1:
        raise ValueError(
            f"`path` must be a .ply with one element, vertex, and {path} is not: it has "
            f"{', '.join(names) or 'none'}."
        )
    table: dict[str, ndarray] = {}
    for element in elements:
        columns, start = _read_element(element, data, start, path)
        if element.name == "vertex":
            table = columns
    if data[start:].strip():
        raise ValueError(
            f"`path` must end with its last element, and {path} goes on for {len(data) - start} "
            "bytes: it is damaged."
        )
    # A double beyond the range of float32 becomes infinite, and whoever needs the column says so.
    with np.errstate(over="ignore"):
        return {name: column.astype(np.float32) for name, column in table.items()}


def _read_element(
    element: Element, data: bytes, start: int, path: str | Path
) -> tuple[dict[str, ndarray], int]:
    """Columns of the numbers in its rows, and where the next element starts."""
    numbers = [p for p in element.properties if p.count_dtype is None]
    names = [p.name for p in numbers]
    if len({*names}) != len(names):
        raise ValueError(
            f"`path` must have each property once per element, and {path} has one of "
            f"{element.name} twice."
        )
    layout = np.dtype([(p.name, p.dtype) for p in numbers])
    if len(numbers) == len(element.properties):
        end = start + element.count * layout.itemsize
        if end > len(data):
            raise _cut_off(element, layout.itemsize, len(data) - start, path)
        body = data[start:end]
    else:
        body, end = _walk_rows(element, data, start, path)
    if layout.itemsize == 0:
        return {}, end
    rows = np.frombuffer(body, layout)
    return {name: rows[name] for name in names}, end


def _walk_rows(element: Element, data: bytes, start: int, path: str | Path) -> tuple[bytes, int]:
    """The numbers of rows with lists, without the lists, and where the rows end."""
    kept, at = [], start
    sizes = [
        (p.count_dtype and np.dtype(p.count_dtype), np.dtype(p.dtype).itemsize)
        for p in element.properties
    ]
    for _ in range(element.count):
        for count_dtype, size in sizes:
            if count_dtype is None:
                kept.append(data[at : at + size])
                at += size
                continue
            counted = data[at : at + count_dtype.itemsize]
            at += count_dtype.itemsize
            length = int(np.frombuffer(counted, count_dtype)[0]) if at <= len(data) else 0
            at += max(length, 0) * size
        if at > len(data):
            raise _cut_off(element, None, len(data) - start, path)
    return b"".join(kept), at


def _cut_off(element: Element, row: int | None, found: int, path: str | Path) -> ValueError:
    size = "their lists" if row is None else f"{row} bytes"
    return ValueError(
        f"`path` must hold {element.count} rows of {size} of its element {element.name}, got "
        f"{found} bytes: {path} is cut off or damaged."
    )

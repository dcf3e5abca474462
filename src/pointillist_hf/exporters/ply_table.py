# SPDX-License-Identifier: Apache-2.0
"""Tables in .ply files: one element `vertex`, binary and little-endian, a number per column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from .atomic_file import write_atomically

TYPES = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4",
    "float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2",
    "int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8",
}  # fmt: skip


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
        ValueError: The file is no table of this kind, is cut off, or holds a number that is not
            finite.
    """
    data = Path(path).read_bytes()
    header, separator, body = data.partition(b"end_header\n")
    lines = header.decode("ascii", errors="replace").splitlines()
    if not separator or not lines or lines[0].strip() != "ply":
        raise ValueError(f"`path` must be a .ply with a whole header, and {path} is not.")
    count, layout = _read_header([line.split() for line in lines[1:] if line.strip()], path)
    if len(body) != count * layout.itemsize:
        raise ValueError(
            f"`path` must hold {count} rows of {layout.itemsize} bytes, got {len(body)} bytes: "
            f"{path} is cut off or damaged."
        )
    rows = np.frombuffer(body, layout)
    columns = {name: rows[name].astype(np.float32) for name in layout.names}
    for name, column in columns.items():
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ValueError(
                f"`path` must hold finite numbers, and {path} has {column[row]} in row {row} of "
                f"its column {name}."
            )
    return columns


def _read_header(lines: list[list[str]], path: str | Path) -> tuple[int, np.dtype]:
    """Number and layout of the rows."""
    formats = [words[1:] for words in lines if words[0] == "format"]
    if formats != [["binary_little_endian", "1.0"]]:
        found = " ".join(formats[0]) if formats else "no format"
        raise ValueError(
            f"`path` must be a .ply in format binary_little_endian 1.0, and {path} has {found}; "
            "convert it first."
        )
    elements = [words[1:] for words in lines if words[0] == "element"]
    names = [words[-1] for words in lines if words[0] == "property"]
    types = [words[1] for words in lines if words[0] == "property" and len(words) == 3]
    is_table = (
        len(elements) == 1
        and elements[0][:1] == ["vertex"]
        and elements[0][-1].isdigit()
        and len(types) == len(names) == len(set(names)) > 0
        and {*types} <= {*TYPES}
    )
    if not is_table:
        raise ValueError(
            "`path` must be a .ply with one element, vertex, and a number per property, and "
            f"{path} is not; compressed files and meshes are other kinds."
        )
    layout = [(name, TYPES[type_]) for name, type_ in zip(names, types, strict=True)]
    return int(elements[0][-1]), np.dtype(layout)

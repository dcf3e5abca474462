# SPDX-License-Identifier: Apache-2.0
"""Headers of .ply files: which elements follow, how many of each, and their properties in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    """A number per row, or a list of numbers behind their count."""

    name: str
    dtype: str  # as numpy writes it, with the byte order
    count_dtype: str | None = None  # of a list


@dataclass(frozen=True)
class Element:
    """Rows of one kind."""

    name: str
    count: int
    properties: tuple[Property, ...]


def split_header(data: bytes, path: str | Path) -> tuple[list[list[str]], int]:
    """The words of the header's lines, and where the body starts.

    Lines end in LF or CR LF, or all of them in CR.
    """
    start = re.match(rb"ply[ \t]*(\r\n|\n|\r)", data)
    end_of_line = rb"\r" if start and start[1] == b"\r" else rb"\r?\n"
    end = re.search(rb"[\r\n]end_header[ \t]*" + end_of_line, data) if start else None
    if end is None:
        raise ValueError(f"`path` must be a .ply with a whole header, and {path} is not.")
    lines = data[start.end() : end.start()].decode("latin-1").splitlines()
    words = [line.split() for line in lines]
    return [line for line in words if line and line[0] not in ("comment", "obj_info")], end.end()


def read_elements(lines: list[list[str]], path: str | Path) -> list[Element]:
    """The elements in the order of the file."""
    formats = [line[1:] for line in lines if line[0] == "format"]
    if len(formats) != 1 or formats[0][1:] != ["1.0"] or formats[0][0] not in BYTE_ORDERS:
        found = " ".join(formats[0]) if formats else "no format"
        raise ValueError(
            "`path` must be a .ply in format binary_little_endian 1.0 or binary_big_endian 1.0, "
            f"and {path} has {found}; convert it first."
        )
    order = BYTE_ORDERS[formats[0][0]]
    elements: list[Element] = []
    for line in lines:
        if line[0] == "format":
            continue
        if line[0] == "element" and len(line) == 3 and line[2].isdecimal():
            elements.append(Element(line[1], int(line[2]), ()))
            continue
        property_ = _read_property(line, order)
        if property_ is None or not elements:
            raise ValueError(
                f"`path` must be a .ply whose header is made of elements and properties, and "
                f"{path} has the line {' '.join(line)!r}."
            )
        last = elements.pop()
        elements.append(Element(last.name, last.count, (*last.properties, property_)))
    return elements


def _read_property(line: list[str], order: str) -> Property | None:
    if line[0] != "property" or any(word not in TYPES for word in line[1:-1] if word != "list"):
        return None
    if len(line) == 3:
        return Property(line[2], order + TYPES[line[1]])
    if len(line) == 5 and line[1] == "list" and line[2] not in ("float", "double"):
        return Property(line[4], order + TYPES[line[3]], order + TYPES[line[2]])
    return None

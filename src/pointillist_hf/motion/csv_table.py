# SPDX-License-Identifier: Apache-2.0
"""Tables of text: a header of unlike names, and rows of as many cells.

Commas, semicolons and tabs part the cells, whichever parts the header most. With semicolons, a
comma in a number is the decimal point of those who write it so.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_SIZE = 2**28  # bytes; an hour of a take at 60 fps has some 2**27
DELIMITERS = (",", ";", "\t")
EMPTY = ("", "nan", "none", "null")


@dataclass(frozen=True)
class Table:
    """Cells by column, and the line of the file that each row stands in."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    decimal: str = "."

    def number(self, name: str, row: int) -> float:
        """A cell as a number; NaN where it is empty."""
        text = self.columns[name][row]
        if text.lower() in EMPTY:
            return math.nan
        try:
            return float(text.replace(self.decimal, "."))
        except ValueError as error:
            raise ValueError(
                f"`{name}` in line {self.lines[row]} of {self.path} must be a number, got {text!r}."
            ) from error

    def numbers(self, name: str) -> list[float]:
        """A column as numbers."""
        return [self.number(name, row) for row in range(len(self.lines))]


def check_size(path: Path) -> None:
    """Refuses a file that would fill the memory."""
    size = path.stat().st_size
    if size > MAX_FILE_SIZE:
        raise ValueError(
            f"{path} must have at most {MAX_FILE_SIZE // 2**20} MiB, got {size // 2**20} MiB. Is "
            "it a take?"
        )


def read_table(path: Path) -> Table:
    """The table of a .csv.

    Raises:
        ValueError: It is no text, has no header, a name twice, or a row longer than the header.
    """
    check_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
        reader = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as .csv: {error}.") from error
    while rows and not rows[-1][1]:
        rows.pop()
    header = rows[0][1] if rows else []
    while header and not header[-1]:
        header.pop()
    _check_header(header, path)
    if len(header) > 1:  # in a single column, an empty line is an empty cell
        rows = [row for row in rows if row[1]]
    cells = [_fit_row(row, len(header), line, path) for line, row in rows[1:]]
    columns = {name: [row[i] for row in cells] for i, name in enumerate(header)}
    lines = [line for line, _ in rows[1:]]
    return Table(path, columns, lines, "," if delimiter == ";" else ".")


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise ValueError(f"{path} must begin with a header of ARKit's names, got an empty file.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path} must name each column once, got {', '.join(map(repr, twice))} more than once."
        )


def _fit_row(row: list[str], width: int, line: int, path: Path) -> list[str]:
    """A row of as many cells as the header; those that lack are empty."""
    if any(row[width:]):
        raise ValueError(
            f"Line {line} of {path} must have {width} cells as the header has, got {len(row)}. "
            "Are commas its decimal points? Then part the cells by semicolons."
        )
    return (row + [""] * width)[:width]

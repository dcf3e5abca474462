# SPDX-License-Identifier: Apache-2.0
"""JSON with what motion files may hold: no name twice, no number that is none."""

from __future__ import annotations

import json
import math
from pathlib import Path

from .csv_table import check_size

Json = dict | list | str | float | int | bool | None


def read_json(path: Path) -> Json:
    """What a .json holds.

    Raises:
        ValueError: It is damaged, nested too deep, or gives a name of an object twice.
    """
    check_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_unlike, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{path} cannot be read as .json: it is nested too deep.") from error
    except ValueError as error:  # what json and the two below raise
        raise ValueError(f"{path} cannot be read as .json: {error}.") from error


def as_number(value: Json, what: str) -> float:
    """A number of a file.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number, got {str(value)[:40]!r}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number.")
    return number


def find_key(record: dict[str, Json], *keys: str) -> Json:
    """The value of the first of the keys that a record has, else None."""
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _unlike(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands more than once in an object")
    return record


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")

# SPDX-License-Identifier: Apache-2.0
"""JSON objects in files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .atomic_file import write_atomically
from .tensor_file import refuse_pointer

MAX_SIZE = 2**26  # bytes


def write_json_object(values: Mapping[str, object], path: str | Path) -> None:
    """Writes an object, indented."""
    text = json.dumps(dict(values), indent=2, allow_nan=False)
    write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))


def read_json_object(path: str | Path) -> dict[str, object]:
    """The object of a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no JSON, holds something else than an object, is too large or
            nested too deep.
    """
    path = Path(path)
    refuse_pointer(path)
    size = path.stat().st_size
    if size > MAX_SIZE:
        raise ValueError(
            f"`path` must be a JSON file of at most {MAX_SIZE} bytes, and {path} has {size}."
        )
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`path` must be a JSON file, and {path} cannot be read as one ({error})."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"`path` must hold a JSON object, and {path} holds {type(values).__name__}."
        )
    return values

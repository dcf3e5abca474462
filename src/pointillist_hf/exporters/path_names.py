# SPDX-License-Identifier: Apache-2.0
"""Names of files and folders that other libraries must be able to write down."""

from __future__ import annotations

from pathlib import Path


def check_path_name(name: str, path: str | Path) -> None:
    """Refuses a path that is no text, as names from disks with another encoding are not.

    Raises:
        ValueError: With the path as bytes.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        written = str(path).encode("utf-8", "surrogateescape")
        raise ValueError(
            f"`{name}` must be a path in UTF-8, got {written!r}; rename the folder, or choose "
            "another."
        ) from error
    if "\0" in str(path):
        raise ValueError(f"`{name}` must be a path without null characters, got {str(path)!r}.")

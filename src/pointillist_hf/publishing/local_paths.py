# SPDX-License-Identifier: Apache-2.0
"""Absolute paths in JSON files: they tell strangers about a machine, and lead nowhere on theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..exporters.json_file import read_json_object, write_json_object

# /home/me/file, ~/file, C:\Users\me, \\server\share, file:///home/me; not "/" or "a/b".
ABSOLUTE = re.compile(r"(file://)?(~?/[^/\s]|[A-Za-z]:[\\/]|\\\\[^\\])")
# Where transformers and diffusers write what a part was loaded from.
ORIGIN_NAMES = ("_name_or_path", "name_or_path", "_commit_hash")


def remove_paths(path: Path) -> None:
    """Leaves of each absolute path in a JSON file its last name, and nothing of where parts lay."""
    config = read_json_object(path)
    cleaned = _clean(config)
    if cleaned != config:
        write_json_object(cleaned, path)


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _clean(v) for k, v in value.items() if k not in ORIGIN_NAMES}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, str) and ABSOLUTE.match(value):
        is_windows = "\\" in value or re.match(r"[A-Za-z]:", value)
        return (PureWindowsPath if is_windows else PurePosixPath)(value).name
    return value


def refuse_paths(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Refuses text that names a folder of this machine.

    Raises:
        ValueError: A file does.
    """
    # The root and folders such as /tmp say nothing of anybody.
    secret = [str(folder).encode() for folder in folders if len(folder.parts) > 2]
    for path in files:
        for folder in secret:
            if folder in path.read_bytes():
                raise ValueError(
                    f"`{path.name}` must not name folders of this machine, and it names "
                    f"{folder.decode()}: take it out."
                )

# SPDX-License-Identifier: Apache-2.0
"""What a folder holds, and which of its files belong to it; nothing else is ever published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ..exporters.json_file import read_json_object
from .manifest import MANIFEST_FILE

Kind = Literal["pipeline", "avatar", "data set", "part"]
PART = "part"  # name of the only part of a part
INDEX_FILE, AVATAR_FILE, CARD_FILE = "model_index.json", "avatar.json", "README.md"
PREVIEW_FILE = "preview.png"
# Of a component: no pickles, no hidden files, no leftovers of interrupted writes.
PART_SUFFIXES = (".json", ".safetensors", ".tflite")
PART_CONFIGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
LEGAL_NAMES = ("LICENSE.txt", "NOTICE.txt")


@dataclass(frozen=True)
class Artefact:
    """A folder with a pipeline, a part of one, an avatar or a data set."""

    kind: Kind
    folder: Path
    files: tuple[PurePosixPath, ...]  # relative, without card and manifest
    parts: tuple[str, ...]  # folders of components

    @property
    def repo_type(self) -> str:
        """What the Hub calls it."""
        return "dataset" if self.kind == "data set" else "model"

    def find_part(self, folder: Path, name: str) -> Path:
        """Where a part lies, in a folder of the same layout."""
        return folder if self.kind == PART else folder / name


def find_artefact(folder: str | Path) -> Artefact:
    """What a folder holds.

    Raises:
        FileNotFoundError: It holds nothing that can be published.
    """
    folder = Path(folder)
    if (folder / INDEX_FILE).is_file():
        index = read_json_object(folder / INDEX_FILE)
        parts = tuple(
            name
            for name, value in index.items()
            if isinstance(value, list) and value[0] is not None
        )
        return _collect("pipeline", folder, parts, [INDEX_FILE])
    if (folder / AVATAR_FILE).is_file():
        own = [AVATAR_FILE, "avatar.safetensors", PREVIEW_FILE]
        return _collect("avatar", folder, ("rig",), own)
    shards = sorted(path.name for path in folder.glob("*.parquet"))
    if shards and (folder / CARD_FILE).is_file():
        return _collect("data set", folder, ("rig", "tokenizer"), shards)
    if any((folder / name).is_file() for name in PART_CONFIGS):
        return Artefact(PART, folder, tuple(_part_files(folder)), (PART,))
    raise FileNotFoundError(
        f"`folder` must hold a pipeline ({INDEX_FILE}), an avatar ({AVATAR_FILE}) or a data set "
        f"(.parquet files and {CARD_FILE}) or a part of a pipeline (config.json), and {folder} "
        "does not."
    )


def _collect(kind: Kind, folder: Path, parts: tuple[str, ...], own: list[str]) -> Artefact:
    files = [PurePosixPath(name) for name in own if (folder / name).is_file()]
    for part in parts:
        files += [PurePosixPath(part, name) for name in _part_files(folder / part)]
    return Artefact(kind, folder, tuple(files), parts)


def _part_files(folder: Path) -> Iterator[PurePosixPath]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        is_hidden = any(name.startswith(".") for name in inside.parts)
        is_known = path.suffix in PART_SUFFIXES or path.name in LEGAL_NAMES
        if path.is_file() and is_known and not is_hidden and path.name != MANIFEST_FILE:
            yield PurePosixPath(inside.as_posix())

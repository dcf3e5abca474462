# SPDX-License-Identifier: Apache-2.0
"""Parts of a pipeline, published one by one: under the same guard as the whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from .artefacts import PART
from .guard import Terms
from .publication import Publication, Request, publish_folder


class SavedPart(Protocol):
    """What can be written to a folder."""

    def save_pretrained(self, save_directory: str | Path) -> object:
        """Writes it."""


def push_part(
    part: SavedPart,
    repo_id: str,
    *,
    licence: str | None = None,
    source: str | None = None,
    rights: str | None = None,
    **options: object,
) -> Publication:
    """Publishes a part; see `GuardedPush.push_to_hub`."""
    words = {"licence": licence, "source": source, "rights": rights}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        part.save_pretrained(folder)
        return push_part_folder(folder, repo_id, **words, **options)


def push_part_folder(
    folder: str | Path,
    repo_id: str,
    *,
    licence: str | None = None,
    source: str | None = None,
    rights: str | None = None,
    **options: object,
) -> Publication:
    """The same for a folder that a part was saved to."""
    if source is not None and licence is None:
        raise ValueError("`licence` must be given with `source`, as the Hub names it.")
    said = {PART: (source, licence)} if source is not None else {}
    return publish_folder(folder, Request(repo_id, Terms(licence, rights), said, **options))

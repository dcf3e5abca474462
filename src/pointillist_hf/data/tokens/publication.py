# SPDX-License-Identifier: Apache-2.0
"""Tokenised data sets on the Hub, as far as their rows may be passed on."""

from __future__ import annotations

from pathlib import Path

from datasets import load_dataset

from ...publishing.guard import Terms
from ...publishing.manifest import NO_LICENCES
from ...publishing.publication import Publication, Request, publish_folder
from ...publishing.restrictions import Restriction
from .synthetic import SOURCE

PEOPLE = "were made of recordings of people, whose consent and licence they need"


def push_token_dataset(
    folder: str | Path,
    repo_id: str,
    *,
    licence: str | None = None,
    rights: str | None = None,
    **options: object,
) -> Publication:
    """Publishes a data set; `datasets.load_dataset` reads it by its id.

    Args:
        folder: Of the data set.
        repo_id: user/name; made where there is none.
        licence: As the Hub names it; by default that of the card.
        rights: Why you may publish what was made of captures of people or with FLAME, in a
            sentence, which is published too.
        **options: `private`, `token`, `commit_message`, `create_pr`, `dry_run`, `card`.

    Raises:
        FileNotFoundError: The folder holds no data set.
        ValueError: It may not be published; the message says why, and what to do.
        OSError: The Hub refused it, or was not reached.
    """
    folder = Path(folder)
    sources, licences = _read_sources(folder)
    restrictions = [Restriction("rows", PEOPLE)] if sources - {SOURCE} else []
    restrictions += [
        Restriction("rows", f"stand under no licence that allows it, but {name!r}")
        for name in sorted(licences & {*NO_LICENCES})
    ]
    given = {"rows": (", ".join(sorted(sources)), ", ".join(sorted(licences)))}
    request = Request(repo_id, Terms(licence, rights), licences=given, **options)
    return publish_folder(folder, request, restrictions)


def _read_sources(folder: Path) -> tuple[set[str], set[str]]:
    """Where the rows come from, and their licences."""
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"`folder` must hold a data set, and {folder} has no .parquet.")
    columns = ["source", "licence"]
    # Streamed, for the two columns alone: pictures are most of the rows.
    rows = load_dataset("parquet", data_files=files, split="train", streaming=True, columns=columns)
    found = [(str(row["source"]), str(row["licence"])) for row in rows]
    return {source for source, _ in found}, {licence for _, licence in found}

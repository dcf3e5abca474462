# SPDX-License-Identifier: Apache-2.0
"""Tokenised avatars as Parquet: one row per person, loadable with `datasets.load_dataset`.

A folder holds <split>-00000-of-00004.parquet ... with the columns of `token_row`, `tokenizer/` and
`rig/`, which the numbers refer to (a FLAME rig is a reference), and `README.md`, the card that
names the splits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from ...exporters.atomic_file import write_atomically
from ...exporters.json_file import read_json_object
from ...models.tokenization_points import PointTokenizer
from ...publishing.download import fetch_folder
from ...rigs.head_rig import HeadRig
from .row_checks import check_columns
from .rows import FEATURES, MAX_VOCABULARY, SCHEMA_VERSION

Rows = Dataset  # of a split, as this room hands them on
CARD_FILE = "README.md"
PARQUET_MARK, MIN_PARQUET = b"PAR1", 12  # at both ends of a file; bytes
PLAIN = re.compile(r"[a-z][a-z0-9.+-]*")  # what YAML takes for a string without quotes
# What datasets, pyarrow and PIL raise of damaged files.
DAMAGE = (
    DatasetsError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    RuntimeError, NotImplementedError,
)  # fmt: skip
CONFIG_NAME = re.compile(r"^(- config_name: people-[0-9a-f]+)-([0-9a-z]+)$", re.MULTILINE)


@dataclass(frozen=True)
class DatasetCard:
    """What the card of a data set says."""

    title: str
    description: str
    licence: str  # as the Hub names it; "other" is never uploaded
    splits: tuple[str, ...]
    settings: Mapping[str, object]
    content: str = "0"  # a digest of what the rows are made of, in lower case and digits


def check_card(output_dir: Path, card: DatasetCard, tokenizer: PointTokenizer) -> None:
    """Refuses a folder with a data set of other settings.

    Raises:
        ValueError: The folder holds one, or cannot hold any.
    """
    if set(str(output_dir)) & set("[]*?"):
        raise ValueError(
            f"`output_dir` must have none of []*? in its path, which datasets takes for a pattern, "
            f"got {output_dir}."
        )
    if tokenizer.vocab_size > MAX_VOCABULARY:
        raise ValueError(
            f"The vocabulary must have at most {MAX_VOCABULARY} ids, got {tokenizer.vocab_size}: "
            "lower `num_bins`."
        )
    path, text = output_dir / CARD_FILE, _card_text(card, tokenizer)
    found = path.read_text("utf-8", "replace") if path.exists() else text
    if _without_content(found) != _without_content(text):
        raise ValueError(
            f"`output_dir` must be empty or hold the same data set, and {output_dir} holds one of "
            "another configuration. Choose another folder, or remove it."
        )


def write_header(
    output_dir: Path, card: DatasetCard, tokenizer: PointTokenizer, rig: HeadRig
) -> None:
    """Writes all but the rows.

    Raises:
        ValueError: The folder holds a data set of another configuration.
    """
    check_card(output_dir, card, tokenizer)
    output_dir.mkdir(parents=True, exist_ok=True)
    text = _card_text(card, tokenizer)
    tokenizer.save_pretrained(output_dir / "tokenizer")
    rig.save_pretrained(output_dir / "rig")
    write_atomically(output_dir / CARD_FILE, lambda partial: partial.write_text(text, "utf-8"))


def has_card(output_dir: Path, card: DatasetCard) -> bool:
    """Whether the folder has the card of these settings and this content."""
    path = output_dir / CARD_FILE
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    return f"- config_name: {_config_name(card)}\n" in text


def _without_content(text: str) -> str:
    return CONFIG_NAME.sub(r"\1", text, count=1)


def write_rows(rows: list[dict[str, object]], path: Path) -> None:
    """Writes a shard in one move."""
    dataset = Dataset.from_list(rows, features=FEATURES)
    write_atomically(path, lambda partial: dataset.to_parquet(partial))


def join_shards(parts: list[Path], path: Path) -> None:
    """Writes the rows of several files into one, in one move."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        files = [str(part) for part in parts]
        rows = load_dataset(
            "parquet", data_files=files, split="train", features=FEATURES, cache_dir=cache
        )
        write_atomically(path, lambda partial: rows.to_parquet(partial))


def shard_paths(output_dir: Path, split: str, count: int) -> list[Path]:
    """Files of a split of so many shards."""
    return [output_dir / f"{split}-{i:05d}-of-{count:05d}.parquet" for i in range(count)]


def find_token_dataset(name: str | Path, **options: object) -> Path:
    """The folder of a data set: the one of that name, or what the Hub has of it, fetched once.

    Args:
        name: A folder, or user/name.
        **options: Of the Hub: `revision`, `cache_dir`, `local_files_only`, `token`.

    Raises:
        FileNotFoundError: There is neither, or no way to it.
        OSError: The Hub refused it.
    """
    # All splits: datasets reads none of them where one that the card names is missing.
    patterns = (CARD_FILE, "tokenizer/*", "rig/*", "*.parquet")
    return fetch_folder(name, patterns, repo_type="dataset", **options)


def load_identities(folder: str | Path, split: str) -> list[str]:
    """Who is in a split, without a look at anything else; nobody if there is no such split."""
    if not list(Path(folder).glob(f"{split}-*.parquet")):
        return []
    return list(load_token_dataset(folder, split)["identity"])


def load_token_dataset(folder: str | Path, split: str) -> Dataset:
    """A split of a tokenised data set on disk.

    Raises:
        FileNotFoundError: The folder holds no such split.
    """
    folder = Path(folder)
    if not isinstance(split, str) or not re.fullmatch(r"\w+", split):
        raise ValueError(f"`split` must be a word such as train or test, got {split!r}.")
    if not list(folder.glob(f"{split}-*.parquet")):
        raise FileNotFoundError(
            f"`folder` must hold {split}-*.parquet files, and there are none in {folder}. Make a "
            "data set with `pointillist-hf tokenize` or examples/make_dataset.py."
        )
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        _check_file(path)
    try:
        rows = load_dataset(str(folder), split=split)
    except DAMAGE as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"`folder` must hold a whole data set, and {folder} cannot be read: "
            f"{' '.join(str(cause).split())[:300].rstrip('.')}. Make or download it again."
        ) from error
    check_columns(rows.column_names, folder)
    if not len(rows):
        raise ValueError(f"`folder` must hold people, and split {split} of {folder} has none.")
    return rows


def _check_file(path: Path) -> None:
    """Refuses what is no whole Parquet: datasets may take rows from its cache without a look."""
    marks, size = (b"", b""), path.stat().st_size
    if path.is_file() and size >= MIN_PARQUET:
        with path.open("rb") as file:
            start = file.read(len(PARQUET_MARK))
            file.seek(-len(PARQUET_MARK), os.SEEK_END)
            marks = start, file.read()
    if marks != (PARQUET_MARK, PARQUET_MARK):
        raise ValueError(
            f"`folder` must hold whole Parquet files, and {path} cannot be read as one: it is cut "
            "off, or a Git LFS pointer. Make or download it again."
        )


def open_tokenizer(folder: str | Path) -> PointTokenizer:
    """The tokenizer of a data set.

    Raises:
        ValueError: It is missing or damaged.
    """
    place = Path(folder) / "tokenizer"
    read_json_object(place / "tokenizer_config.json")
    try:
        return PointTokenizer.from_pretrained(place)
    except DAMAGE as error:
        raise ValueError(f"{place} cannot be read as a tokenizer: {error}") from error


def read_row(rows: Dataset, number: int) -> dict[str, object]:
    """A row with its pictures decoded.

    Raises:
        ValueError: One of them is damaged.
    """
    try:
        return rows[number]
    except DAMAGE as error:
        raise ValueError(
            f"`row` {number} of the data set cannot be read: {' '.join(str(error).split())}. Make "
            "the data set again."
        ) from error


def check_licence(licence: str) -> None:
    """Refuses what cannot be a licence's name.

    Raises:
        ValueError: It is empty, or has spaces around it, or characters that are not printed.
    """
    is_text = isinstance(licence, str) and licence.isprintable() and licence.isascii()
    if not is_text or not licence.strip() or licence != licence.strip() or len(licence) > 100:
        raise ValueError(
            "`licence` must be a name as the Hub has it, such as cc-by-4.0, apache-2.0 or other, "
            f"got {licence!r}."
        )


def _quote(text: str) -> str:
    """A string of YAML; JSON's are among them."""
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _config_name(card: DatasetCard) -> str:
    """Another one for every other data set.

    datasets caches a local folder under its last name and this name only: two data sets in folders
    called "data" would be taken for one, and new rows for those of last week.
    """
    known = f"{SCHEMA_VERSION}{card.title}{sorted(card.settings.items())}"
    return f"people-{hashlib.sha256(known.encode()).hexdigest()[:12]}-{card.content}"


def _card_text(card: DatasetCard, tokenizer: PointTokenizer) -> str:
    cells = {name: str(value).replace("|", "\\|") for name, value in card.settings.items()}
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in cells.items())
    files = "\n".join(f'  - split: {s}\n    path: "{s}-*.parquet"' for s in card.splits)
    return f"""---
license: {_quote(card.licence)}
tags: [pointillist, gaussian-splatting, head-avatar]
configs:
- config_name: {_config_name(card)}
  default: true
  data_files:
{files}
---
# {card.title}

{card.description}

Each row holds a person's canonical point cloud as tokens ({tokenizer.num_bins} bins per axis,
{tokenizer.num_faces} faces, order {tokenizer.token_order}), portraits, and views with cameras.
Schema version {SCHEMA_VERSION}; the columns are described in `pointillist_hf.data.tokens.rows`.

| setting | value |
| --- | --- |
{settings}
"""

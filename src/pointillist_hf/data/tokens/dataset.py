# SPDX-License-Identifier: Apache-2.0
"""Tokenised avatars as Parquet: one row per person, loadable with `datasets.load_dataset`.

A folder holds <split>-00000-of-00004.parquet ... with the columns of `token_row`, `tokenizer/` and
`rig/`, which the numbers refer to (a FLAME rig is a reference), and `README.md`, the card that
names the splits.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, load_dataset

from ...exporters.atomic_file import write_atomically
from ...models.tokenization_points import PointTokenizer
from ...rigs.head_rig import HeadRig
from .rows import FEATURES, MAX_VOCABULARY, SCHEMA_VERSION

CARD_FILE = "README.md"
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
    if path.exists() and _without_content(path.read_text()) != _without_content(text):
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
    write_atomically(output_dir / CARD_FILE, lambda partial: partial.write_text(text))


def has_card(output_dir: Path, card: DatasetCard) -> bool:
    """Whether the folder has the card of these settings and this content."""
    path = output_dir / CARD_FILE
    return path.is_file() and f"- config_name: {_config_name(card)}\n" in path.read_text()


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


def load_token_dataset(folder: str | Path, split: str) -> Dataset:
    """A split of a tokenised data set on disk.

    Raises:
        FileNotFoundError: The folder holds no such split.
    """
    folder = Path(folder)
    if not list(folder.glob(f"{split}-*.parquet")):
        raise FileNotFoundError(
            f"`folder` must hold {split}-*.parquet files, and there are none in {folder}. Make a "
            "data set with `pointillist-hf tokenize` or examples/make_dataset.py."
        )
    return load_dataset(str(folder), split=split)


def _config_name(card: DatasetCard) -> str:
    """Another one for every other data set.

    datasets caches a local folder under its last name and this name only: two data sets in folders
    called "data" would be taken for one, and new rows for those of last week.
    """
    known = f"{SCHEMA_VERSION}{card.title}{sorted(card.settings.items())}"
    return f"people-{hashlib.sha256(known.encode()).hexdigest()[:12]}-{card.content}"


def _card_text(card: DatasetCard, tokenizer: PointTokenizer) -> str:
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in card.settings.items())
    files = "\n".join(f'  - split: {s}\n    path: "{s}-*.parquet"' for s in card.splits)
    return f"""---
license: {card.licence}
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

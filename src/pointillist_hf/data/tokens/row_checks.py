# SPDX-License-Identifier: Apache-2.0
"""Whether a row of a tokenised data set is one: of these columns, this tokenizer and this rig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...geometry.structures import POSE_NAMES
from ...models.tokenization_points import TOKENS_PER_POINT, PointTokenizer
from ...rigs.head_rig import HeadRig
from ..rig_reference import rig_hash
from .rows import FEATURES

AGAIN = "make the data set again"


def check_data_set(tokenizer: PointTokenizer, rig: HeadRig, folder: object) -> None:
    """Refuses a tokenizer that was made for another rig than the one beside it."""
    if tokenizer.num_faces != rig.num_faces:
        raise ValueError(
            f"`folder` must hold a tokenizer for its rig, and in {folder} the tokenizer has "
            f"{tokenizer.num_faces} faces and the rig {rig.num_faces}; {AGAIN}."
        )


def check_columns(names: Sequence[str], folder: object) -> None:
    """Refuses files that lack columns."""
    missing = [name for name in FEATURES if name not in names]
    if missing:
        raise ValueError(
            f"`folder` must hold rows with the column `{missing[0]}`, and those in {folder} have "
            f"none; {AGAIN} with this version."
        )


def check_row(
    row: Mapping[str, object], tokenizer: PointTokenizer, rig: HeadRig, *, known_hash: str = ""
) -> None:
    """Refuses a row that is cut, empty, not finite, or of another tokenizer or rig.

    Args:
        row: As `datasets` gives it.
        tokenizer: Of the data set.
        rig: Of the data set.
        known_hash: `rig_hash` of the rig, if it was computed before.

    Raises:
        ValueError: With the person, the column, the rule and what came.
    """
    who = f"of {row['identity']!r}"
    for name in FEATURES:
        if row.get(name) is None:
            raise ValueError(f"`{name}` {who} must not be missing; {AGAIN}.")
    wanted = known_hash or rig_hash(rig)
    if row["rig_hash"] != wanted:
        raise ValueError(
            f"`rig_hash` {who} must be that of the rig in the folder, {wanted}, got "
            f"{row['rig_hash']!r}; {AGAIN}."
        )
    _check_tokens(row, tokenizer, who)
    _check_length("betas", row["betas"], rig.num_betas, who)
    offset = row["static_offset"]
    _check_length("static_offset", offset, len(offset) and rig.v_template.numel(), who)
    if not row["rig_points"] or len(row["rig_points"]) % 6:
        raise ValueError(
            f"`rig_points` {who} must be [P, 6], got {len(row['rig_points'])} numbers; {AGAIN}."
        )
    _check_length("rig_points", row["rig_points"], len(row["rig_points"]), who)
    for kind in ("portrait", "view"):
        _check_pictures(row, kind, rig, who)


def _check_tokens(row: Mapping[str, object], tokenizer: PointTokenizer, who: str) -> None:
    ids, count, layout = row["input_ids"], row["num_points"], tokenizer.layout
    start, end = [layout.bos_token_id], [layout.eos_token_id]
    if count < 1 or len(ids) != TOKENS_PER_POINT * (count + 2):
        raise ValueError(
            f"`input_ids` {who} must be 4 (N + 2) tokens of `num_points` N, at least 1, got "
            f"{len(ids)} for {count}; {AGAIN}."
        )
    if ids[:TOKENS_PER_POINT] != TOKENS_PER_POINT * start or (
        ids[-TOKENS_PER_POINT:] != TOKENS_PER_POINT * end
    ):
        raise ValueError(
            f"`input_ids` {who} must begin with four {start[0]} and end with four {end[0]}, got "
            f"{ids[:4]} and {ids[-4:]}: they are cut, or of another tokenizer; {AGAIN}."
        )
    try:
        found = len(tokenizer.decode_points(torch.tensor(ids)))
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')} {who}; {AGAIN}.") from error
    if found != count:
        raise ValueError(f"`input_ids` {who} must hold {count} points, got {found}; {AGAIN}.")


def _check_length(name: str, values: Sequence[float], length: int, who: str) -> None:
    if len(values) != length:
        raise ValueError(f"`{name}` {who} must be {length} numbers, got {len(values)}; {AGAIN}.")
    if not torch.tensor(values).isfinite().all():
        raise ValueError(f"`{name}` {who} must be finite, got NaN or infinity; {AGAIN}.")


def _check_pictures(row: Mapping[str, object], kind: str, rig: HeadRig, who: str) -> None:
    pictures = row[f"{kind}s"]
    sizes = {image.size for image in pictures}
    least = 1 if kind == "portrait" else 0  # the generator learns without views
    if len(pictures) < least or len(sizes) > 1:
        number = "at least one picture" if least else "pictures"
        raise ValueError(
            f"`{kind}s` {who} must be {number}, all of one size, got "
            f"{len(pictures)} of {sorted(sizes)}; {AGAIN}."
        )
    widths = {"expression": rig.num_expressions, "poses": 3 * len(POSE_NAMES), "transl": 3}
    for name, width in {**widths, "viewmats": 16, "Ks": 9}.items():
        column = f"{kind}_{name}"
        _check_length(column, row[column], len(pictures) * width, who)

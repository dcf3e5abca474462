# SPDX-License-Identifier: Apache-2.0
"""A tokenised data set in memory, or on disk where it is too large, as people for batches."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.rig_reference import open_saved_rig, rig_hash
from ..data.tokens.dataset import (
    Rows,
    find_token_dataset,
    load_token_dataset,
    open_tokenizer,
    read_row,
)
from ..data.tokens.face_counts import find_most_per_face, read_clouds
from ..data.tokens.row_checks import check_data_set, check_row
from ..data.tokens.rows import row_cameras, row_params
from ..data.tokens.stored_pictures import StoredPictures, read_pictures, undecoded
from ..geometry.structures import Cameras, RigParams
from ..models.decoded_layout import count_decoded_layout
from ..models.tokenization_points import TOKENS_PER_POINT, PointTokenizer, TokenOrder
from ..rigs.head_rig import HeadRig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Person:
    """One row of the data set as tensors; what is large is held as it is stored."""

    identity: str
    hair_style: str
    stored_ids: Tensor  # [4 (N + 2)] as few bytes as the vocabulary allows
    portraits: StoredPictures  # [K, H, W, 4] uint8, straight alpha
    portrait_params: RigParams  # K frames
    portrait_cameras: Cameras  # K
    views: StoredPictures  # [V, H, W, 4] uint8; V may be 0
    view_params: RigParams  # V frames
    view_cameras: Cameras

    @property
    def input_ids(self) -> Tensor:
        """Tokens of the cloud. [4 (N + 2)]"""
        return self.stored_ids.long()

    @property
    def betas(self) -> Tensor:
        """Identity coefficients. [S]"""
        return self.portrait_params.betas[0]

    @property
    def num_points(self) -> int:
        """Points of the cloud."""
        return len(self.stored_ids) // TOKENS_PER_POINT - 2


class PersonsOnDisk(Sequence[Person]):
    """The rows of a split, each read when it is asked for, and checked the first time.

    Args:
        rows: Of the data set.
        tokenizer: Of the data set.
        rig: Of the data set.
        token_order: Order that the clouds are encoded in.
    """

    def __init__(
        self, rows: Rows, tokenizer: PointTokenizer, rig: HeadRig, token_order: TokenOrder
    ) -> None:
        self.rows, self.pictures = rows, undecoded(rows)
        self.stored, self.rig, self.rig_hash = tokenizer, rig, rig_hash(rig)
        self.tokenizer = reordered(tokenizer, token_order)
        self.checked: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Person: ...

    @overload
    def __getitem__(self, index: slice) -> list[Person]: ...

    def __getitem__(self, index: int | slice) -> Person | list[Person]:
        """A person, or those of a slice."""
        numbers = range(len(self))[index]
        return self._read(numbers) if isinstance(index, int) else [self._read(i) for i in numbers]

    def _read(self, number: int) -> Person:
        row = read_row(self.rows, number)
        if number not in self.checked:
            check_row(row, self.stored, self.rig, known_hash=self.rig_hash)
            self.checked.add(number)
        person = _read_person(row, read_pictures(self.pictures, number), self.stored)
        return _encode_anew(person, self.stored, self.tokenizer)


@dataclass(frozen=True)
class People:
    """A split with the tokenizer and the rig that its numbers refer to."""

    persons: Sequence[Person]
    tokenizer: PointTokenizer
    rig: HeadRig

    def __len__(self) -> int:
        return len(self.persons)

    @property
    def point_counts(self) -> list[int]:
        """Points of each cloud."""
        if isinstance(self.persons, PersonsOnDisk):
            return list(self.persons.rows["num_points"])
        return [person.num_points for person in self.persons]

    @property
    def most_per_face(self) -> int:
        """The most points that a face owns in any of the clouds."""
        if isinstance(self.persons, PersonsOnDisk):
            return find_most_per_face(read_clouds(self.persons.rows), self.persons.stored.layout)
        clouds = (person.stored_ids.numpy() for person in self.persons)
        return find_most_per_face(clouds, self.tokenizer.layout)

    def layout_of(self, person: Person, size: int) -> Tensor:
        """How many points of a person stand off the skin, cell by cell. [size, size^2]"""
        points = self.tokenizer.decode_points(person.input_ids)
        return count_decoded_layout(points, self.tokenizer, self.rig, person.betas, size)


def load_people(
    folder: str | Path,
    split: str,
    *,
    token_order: TokenOrder | None = None,
    on_disk: bool | None = None,
    show_progress: bool = False,
    **options: object,
) -> People:
    """Reads a split of a tokenised data set.

    Args:
        folder: Of the data set; or its id on the Hub, from which it is fetched once.
        split: Of it.
        token_order: Order that the clouds are encoded in; the data set's own unless given.
        on_disk: Whether people are read when they are asked for, and not kept; None does so where
            they would take more than half of the memory that is free.
        show_progress: Whether to draw a bar.
        **options: Of the Hub: `revision`, `cache_dir`, `local_files_only`, `token`.

    Raises:
        FileNotFoundError: There is no such data set or split, or no way to it.
        ValueError: A file or a row is damaged, or of another tokenizer or rig.
        OSError: The Hub refused it.
    """
    folder = find_token_dataset(folder, **options)
    rows = load_token_dataset(folder, split)
    tokenizer, rig = open_tokenizer(folder), open_saved_rig(folder / "rig")
    check_data_set(tokenizer, rig, folder)
    persons = PersonsOnDisk(rows, tokenizer, rig, token_order or tokenizer.token_order)
    if on_disk is None:
        on_disk = rows.data.nbytes > free_memory() / 2
        if on_disk:
            logger.info("%s of %s stays on disk: it is larger than memory.", split, folder)
    if on_disk:
        return People(persons, persons.tokenizer, rig)
    kept = [
        persons[number] for number in tqdm(range(len(rows)), disable=not show_progress, desc=split)
    ]
    return People(kept, persons.tokenizer, rig)


def free_memory() -> float:
    """Bytes that may be taken; without bound where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_views(people: People) -> None:
    """Refuses people of whom there is nothing but a cloud and portraits.

    Raises:
        ValueError: Somebody has no view.
    """
    for person in people.persons:
        if not len(person.views):
            raise ValueError(
                f"`data` must hold views for this stage, and {person.identity!r} has none; make a "
                "data set with num_views of 1 or more. Regressor and generator learn without."
            )


def with_token_order(people: People, token_order: TokenOrder) -> People:
    """The same clouds as they read in another order of tokens."""
    old = people.tokenizer
    if token_order == old.token_order:
        return people
    if isinstance(people.persons, PersonsOnDisk):
        own = people.persons
        persons = PersonsOnDisk(own.rows, own.stored, own.rig, token_order)
        return replace(people, persons=persons, tokenizer=persons.tokenizer)
    new = reordered(old, token_order)
    persons = [_encode_anew(person, old, new) for person in people.persons]
    return replace(people, persons=persons, tokenizer=new)


def reordered(tokenizer: PointTokenizer, token_order: TokenOrder) -> PointTokenizer:
    """The tokenizer with another order of tokens."""
    return PointTokenizer(
        num_bins=tokenizer.num_bins,
        num_faces=tokenizer.num_faces,
        token_order=token_order,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
        outside=tokenizer.outside,
    )


def _encode_anew(person: Person, old: PointTokenizer, new: PointTokenizer) -> Person:
    """The person's cloud decoded and encoded: a bin's centre falls into the same bin."""
    if new.token_order == old.token_order:
        return person
    input_ids = new.encode_points(old.decode_points(person.input_ids))
    return replace(person, stored_ids=_pack(input_ids, new))


def _pack(input_ids: Tensor, tokenizer: PointTokenizer) -> Tensor:
    """The ids in the smallest type that holds the vocabulary."""
    fits = tokenizer.vocab_size <= torch.iinfo(torch.int16).max
    return input_ids.to(torch.int16 if fits else torch.int32)


def _read_person(
    row: dict, files: dict[str, tuple[bytes, ...]], tokenizer: PointTokenizer
) -> Person:
    cameras = {kind: row_cameras(row, kind) for kind in ("portrait", "view")}
    pictures = {
        kind: StoredPictures(files[f"{kind}s"], camera.width, camera.height)
        for kind, camera in cameras.items()
    }
    return Person(
        identity=row["identity"],
        hair_style=row["hair_style"],
        stored_ids=_pack(torch.tensor(row["input_ids"]), tokenizer),
        portraits=pictures["portrait"],
        portrait_params=row_params(row, "portrait"),
        portrait_cameras=cameras["portrait"],
        views=pictures["view"],
        view_params=row_params(row, "view"),
        view_cameras=cameras["view"],
    )

# SPDX-License-Identifier: Apache-2.0
"""Who is trained on and who is held out: people, not recordings.

Several recordings of one person are on one side. Folders of NeRSemble begin with the number of the
person, as in 074_EMO-1_v16_DS4 or UNION10_074_EMO1234; of other names each is a person of its own,
unless a pattern says which part of it is the person.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

NERSEMBLE = re.compile(r"(?:UNION\d*_)?(?P<person>\d{3})_[A-Z].*")
TEST_FILE = "test_people.txt"  # in the folder of a data set
COMMENT = "#"


def compile_pattern(pattern: str | None) -> re.Pattern | None:
    """A regular expression for names, which must have a group called person.

    Raises:
        ValueError: It is none.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"`person_pattern` must be a regular expression, got {pattern!r}: {error}."
        ) from error
    if "person" not in compiled.groupindex:
        raise ValueError(
            f"`person_pattern` must have a group called person, as in "
            f"'(?P<person>[a-z]+)_.*', got {pattern!r}."
        )
    return compiled


def find_person(name: str, pattern: re.Pattern | None = None) -> str:
    """Who a recording of that name shows.

    Raises:
        ValueError: The pattern does not match.
    """
    match = (pattern or NERSEMBLE).fullmatch(name)
    if match is None and pattern is not None:
        raise ValueError(
            f"`person_pattern` must match all names, and {pattern.pattern!r} does not match "
            f"{name!r}."
        )
    return name if match is None else match["person"]


def choose_splits(
    names: Sequence[str],
    num_test: int = 0,
    *,
    test_people: Sequence[str] = (),
    seed: int = 0,
    pattern: str | None = None,
) -> dict[str, str]:
    """Split of each recording, "train" or "test".

    Args:
        names: Of the recordings.
        num_test: People to hold out, drawn by a hash of their names and the seed: the same of the
            same people on every machine.
        test_people: Who is held out, by name; in place of `num_test`.
        seed: Of the draw.
        pattern: See `compile_pattern`; None reads names as NeRSemble has them.

    Raises:
        ValueError: Nobody would be left to train on, or nobody to test on.
    """
    compiled = compile_pattern(pattern)
    person_of = {name: find_person(name, compiled) for name in names}
    people = sorted({*person_of.values()})
    if test_people:
        held_out = _take_named(people, test_people)
    else:
        held_out = set(sorted(people, key=lambda person: _hash(person, seed))[:num_test])
    if num_test >= len(people) or held_out == {*people}:
        raise ValueError(
            f"`num_test` must be less than the number of people, {len(people)}, got "
            f"{num_test or len(held_out)}: somebody must be left to train on."
        )
    return {name: "test" if person in held_out else "train" for name, person in person_of.items()}


def _take_named(people: Sequence[str], wanted: Sequence[str]) -> set[str]:
    unknown = sorted({*wanted} - {*people})
    if len(unknown) == len({*wanted}):
        raise ValueError(
            f"`test_people` must name people of the fits, and knows none of them; it begins with "
            f"{wanted[0]!r}, they begin with {people[0]!r}."
        )
    if unknown:
        logger.warning("No fit is of %s, whom `test_people` names.", ", ".join(unknown))
    return {*wanted} & {*people}


def _hash(person: str, seed: int) -> str:
    text = f"{seed} {person}" if seed else person
    return hashlib.sha256(text.encode()).hexdigest()


def read_names(path: str | Path) -> tuple[str, ...]:
    """The names of a file, one a line; what follows a # is a comment.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It names nobody, or somebody twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`test_people` must be a file, and there is none at {path}.")
    lines = path.read_text("utf-8", "replace").splitlines()
    names = [line.split(COMMENT)[0].strip() for line in lines]
    names = [name for name in names if name]
    if not names or len({*names}) < len(names):
        raise ValueError(
            f"`test_people` must name people, each once and one a line, and {path} has "
            f"{len(names)} names, {len({*names})} of them different."
        )
    return tuple(names)


def check_leakage(train: Sequence[str], test: Sequence[str]) -> None:
    """Refuses splits that share people.

    Args:
        train: People that are trained on.
        test: People that are held out.

    Raises:
        ValueError: Somebody is in both.
    """
    shared = sorted({*train} & {*test})
    if shared:
        raise ValueError(
            f"`train` and `test` must not share people, and {len(shared)} are in both, for "
            f"instance {shared[0]!r}; make the data set again."
        )

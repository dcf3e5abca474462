# SPDX-License-Identifier: Apache-2.0
"""Who is taken into a data set: seeds of the population, some of them for what they show.

What generators find hard is rare: glasses, beards, hair that is long or tied. A person who is cast
for it is the next one of the population who has it, so all are people of `build_subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from ...rigs.procedural.template import Resolution
from .identity import Identity, sample_identity
from .subject import shape_basis

CASTING_STREAM = 5
LONG_STYLES, TIED_STYLES = ("long",), ("ponytail", "bun", "braids")

RARITIES: dict[str, Callable[[Identity], bool]] = {
    "glasses": lambda identity: identity.glasses is not None,
    "beard": lambda identity: identity.beard_style not in (None, "stubble"),
    "long hair": lambda identity: identity.hair_style in LONG_STYLES,
    "tied hair": lambda identity: identity.hair_style in TIED_STYLES,
}


def cast_seeds(
    first: int, count: int, *, rare_share: float, resolution: Resolution, use_accessories: bool
) -> tuple[int, ...]:
    """Seeds of people in rising order; more of them begin with the same ones.

    Args:
        first: Where to begin.
        count: How many.
        rare_share: Share of them who are cast for one of `RARITIES`, each as often as the others.
            The rest are as they come, so that these may have it too.
        resolution: Of the template.
        use_accessories: Whether people wear glasses; else nobody is cast for them.
    """
    if not rare_share:
        return tuple(range(first, first + count))
    names = [name for name in RARITIES if use_accessories or name != "glasses"]
    return tuple(islice(_cast(first, names, rare_share, resolution), count))


def _cast(first: int, names: list[str], rare_share: float, resolution: Resolution) -> Iterator[int]:
    rng = np.random.default_rng([first, CASTING_STREAM])
    shape_names, _ = shape_basis(resolution)
    seed = first
    while True:
        is_cast, wanted = rng.random() < rare_share, names[rng.integers(len(names))]
        while is_cast and not RARITIES[wanted](sample_identity(seed, shape_names)):
            seed += 1
        yield seed
        seed += 1

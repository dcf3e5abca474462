# SPDX-License-Identifier: Apache-2.0
"""One fit and its capture as a row of a tokenised data set."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ...geometry.number_checks import MAX_SEED, check_integer, check_number
from ...models.tokenization_points import PointTokenizer, TokenLayout, TokenOrder
from ...rigs.flame_rig import FlameHeadRig
from ...rigs.head_rig import HeadRig
from ..captures.pictures import cut_pictures
from ..captures.reading import read_capture
from ..fitting.canonicalization import PointFilter, canonicalize
from ..fitting.fits import FittedPerson, read_notes
from ..rig_reference import match_rig
from .dataset import check_licence
from .people_splits import compile_pattern, find_person
from .rows import TokenisedPerson, build_row
from .synthetic import PROCEDURAL_CUBE

logger = logging.getLogger(__name__)

FLAME_CUBE = {"cube_center": [0.0, -0.03, -0.04], "cube_half_extent": 0.30}


COUNTS = {
    "num_portraits": (1, 1024), "num_views": (1, 4096), "num_rig_points": (1, 2**20),
    "identities_per_shard": (1, 2**16), "num_test": (0, 10**9), "image_size": (16, 2**12),
    "seed": (0, MAX_SEED), "test_seed": (0, MAX_SEED),
}  # fmt: skip


@dataclass(frozen=True)
class TokenizeConfig:
    """How fits become rows."""

    # tokens
    num_bins: int = 1024
    token_order: TokenOrder = "xyzb"
    cube_half_extent: float | None = None  # metres; by default 0.30 on FLAME, 0.25 on our head

    # which splats become points, see `PointFilter`
    min_opacity: float = 0.0
    keep_every_face: bool = False
    merge_duplicates: bool = False
    max_outside: float = 0.005

    # pictures per person, and their side in pixels
    num_portraits: int = 4
    num_views: int = 16
    image_size: int = 256
    num_rig_points: int = 2048

    # who is held out, see `people_splits`: so many people, or those that are named
    num_test: int = 0
    test_people: tuple[str, ...] = ()
    test_seed: int = 0
    person_pattern: str | None = None

    identities_per_shard: int = 16
    licence: str = "other"  # nobody may pass on what was made of captures, unless you say so
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in COUNTS.items():
            check_integer(name, getattr(self, name), low, high)
        if self.cube_half_extent is not None:
            check_number("cube_half_extent", self.cube_half_extent, 0, 100, above=True)
        check_licence(self.licence)
        compile_pattern(self.person_pattern)
        if self.num_test and self.test_people:
            raise ValueError(
                f"`num_test` must be 0 where `test_people` are named, got {self.num_test}."
            )
        # Refuse what they cannot be.
        TokenLayout(self.num_bins, 1, self.token_order)
        _ = self.point_filter

    @property
    def point_filter(self) -> PointFilter:
        """Which splats become points."""
        return PointFilter(
            min_opacity=self.min_opacity,
            keep_every_face=self.keep_every_face,
            merge_duplicates=self.merge_duplicates,
            max_outside=self.max_outside,
        )

    def build_tokenizer(self, rig: HeadRig) -> PointTokenizer:
        """The tokenizer of the data set's points."""
        cube = dict(FLAME_CUBE if isinstance(rig, FlameHeadRig) else PROCEDURAL_CUBE)
        if self.cube_half_extent is not None:
            cube["cube_half_extent"] = self.cube_half_extent
        return PointTokenizer(
            num_bins=self.num_bins, num_faces=rig.num_faces, token_order=self.token_order, **cube
        )


def tokenize_fit(
    name: str,
    folder: Path,
    split: str,
    person: FittedPerson,
    config: TokenizeConfig,
    captures_dir: str | Path | None = None,
) -> dict[str, object]:
    """The row of one fit, see `token_row`."""
    tokenizer = config.build_tokenizer(person.rig)
    points, statistics = canonicalize(
        person.splats, person.rig, person.rest_vertices, tokenizer, config.point_filter
    )
    logger.info("%s: %s", name, statistics)
    capture = match_rig(read_capture(_find_capture(name, folder, captures_dir)), person.rig)
    portraits, views = cut_pictures(
        capture,
        person.rig,
        config.num_portraits,
        config.num_views,
        size=config.image_size,
        seed=config.seed,
    )
    tokenised = TokenisedPerson(
        identity=find_person(name, compile_pattern(config.person_pattern)),
        split=split,
        source="fit of a capture",
        licence=config.licence,
        points=points,
        betas=person.rig_params.betas[0],
        portraits=portraits,
        views=views,
        static_offset=person.static_offset,
    )
    return build_row(tokenised, person.rig, tokenizer, num_rig_points=config.num_rig_points)


def _find_capture(name: str, folder: Path, captures_dir: str | Path | None) -> Path:
    capture = read_notes(folder).get("capture")
    if capture is None and captures_dir is not None:
        return Path(captures_dir) / name
    if capture is None:
        raise FileNotFoundError(
            f"{folder} does not say where its capture is, which the portraits come from; pass "
            "`captures_dir`, the folder that holds it."
        )
    return folder / str(capture)

# SPDX-License-Identifier: Apache-2.0
"""From fits to a tokenised data set (paper Sec. 3.2)."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ...exporters.atomic_file import write_atomically
from ...exporters.folder_owner import own_folder
from ...exporters.path_names import check_path_name
from ...rigs.head_rig import HeadRig
from ..cluster import seen_from
from ..fitting.fits import FIT_FILE, fit_digest, read_fit, read_notes
from ..rig_reference import open_rig, rig_hash
from ..work_pool import run_jobs
from .dataset import (
    DatasetCard,
    check_card,
    has_card,
    join_shards,
    shard_paths,
    write_header,
    write_rows,
)
from .fit_row import TokenizeConfig, tokenize_fit
from .people_splits import TEST_FILE, choose_splits, compile_pattern, find_person

logger = logging.getLogger(__name__)

ROWS_FOLDER = ".rows"  # of an unfinished data set: a file for each person


@dataclass(frozen=True)
class Job:
    """A fit on its way to a row."""

    name: str
    folder: Path
    split: str
    path: Path  # of the row


def tokenize_fits(
    fits: Sequence[str | Path],
    output_dir: str | Path,
    config: TokenizeConfig | None = None,
    *,
    captures_dir: str | Path | None = None,
    flame_path: str | Path | None = None,
    flame_version: str | None = None,
    num_proc: int = 1,
    cluster: str | None = None,
    show_progress: bool = True,
) -> dict[str, str]:
    """Makes a data set of fits; an interrupted call goes on where it stopped.

    A fit that cannot be read is reported and left out; called again once it is mended, the others
    are not done again.

    Args:
        fits: Folders of fits, or folders of such folders; all on one rig.
        output_dir: Folder of the data set.
        config: How fits become rows.
        captures_dir: Where to look for the capture of a fit that does not say where it is: in
            the folder called as the fit is.
        flame_path: The user's FLAME, for fits on FLAME.
        flame_version: Which release it is, if its name does not say.
        num_proc: Processes.
        cluster: Address of a dask scheduler, whose workers do it instead; see `data.cluster`.
        show_progress: Whether to draw a bar.

    Returns:
        What was left out: fit to message.

    Raises:
        BlockingIOError: Another process writes to the folder.
        ValueError: There is no fit, names are not unique, or the folder holds another data set.
    """
    config, output_dir = config or TokenizeConfig(), seen_from(cluster, output_dir)
    folders = find_fits([seen_from(cluster, folder) for folder in fits])
    check_path_name("output_dir", output_dir)
    digests = {name: _digest(folder) for name, folder in folders}
    splits = _choose_splits([name for name, _ in folders], config)
    flame = {"flame_path": seen_from(cluster, flame_path), "flame_version": flame_version}
    rig = _common_rig([folder for _, folder in folders], flame)
    card = _card(config, digests, rig)
    rows_dir = output_dir / ROWS_FOLDER
    is_same = has_card(output_dir, card) and not rows_dir.exists()
    if is_same and _is_complete(output_dir, splits, config):
        logger.info("%s is finished.", output_dir)
        return {}
    tokenizer = config.build_tokenizer(rig)
    check_card(output_dir, card, tokenizer)
    with own_folder(output_dir):
        # First: it says that the folder is not complete.
        rows_dir.mkdir(parents=True, exist_ok=True)
        write_header(output_dir, card, tokenizer, rig)
        _write_test_people(output_dir, splits, config)
        paths = {
            name: _row_path(rows_dir, name, splits[name], digests[name]) for name, _ in folders
        }
        jobs = [Job(name, folder, splits[name], paths[name]) for name, folder in folders]
        missing = [job for job in jobs if not job.path.exists()]
        work = partial(
            _try_row,
            config=config,
            captures_dir=seen_from(cluster, captures_dir),
            flame=flame,
            expected_hash=rig_hash(rig),
        )
        where = {"num_proc": num_proc, "cluster": cluster, "show_progress": show_progress}
        outcomes = run_jobs(work, missing, unit="fit", **where)
        failed = {str(job.folder): problem for job, problem in outcomes if problem is not None}
        for folder, problem in failed.items():
            logger.error("%s is left out: %s", folder, problem)
        done = [name for name, path in paths.items() if path.exists()]
        _refuse_empty_splits({*card.splits} - {splits[name] for name in done}, failed)
        _write_shards(output_dir, paths, done, splits, config)
        if not failed:
            shutil.rmtree(rows_dir)
        return failed


def _choose_splits(names: Sequence[str], config: TokenizeConfig) -> dict[str, str]:
    return choose_splits(
        names,
        config.num_test,
        test_people=config.test_people,
        seed=config.test_seed,
        pattern=config.person_pattern,
    )


def _write_test_people(output_dir: Path, splits: dict[str, str], config: TokenizeConfig) -> None:
    """Who is held out, for another data set of the same people."""
    pattern = compile_pattern(config.person_pattern)
    people = {find_person(name, pattern) for name, split in splits.items() if split == "test"}
    text = "".join(f"{person}\n" for person in sorted(people))
    if people:
        write_atomically(
            output_dir / TEST_FILE, lambda partial: partial.write_text(text, encoding="utf-8")
        )


def _refuse_empty_splits(lacking: set[str], failed: dict[str, str]) -> None:
    if lacking:
        raise ValueError(
            f"No fit of split {' and '.join(sorted(lacking))} can be read; the last: "
            f"{': '.join(failed.popitem())}"
        )


def find_fits(folders: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Names and folders of fits, sorted by name; a folder may be a fit or hold some.

    Raises:
        ValueError: There is none, or two have one name.
    """
    found = []
    for folder in map(Path, folders):
        candidates = [folder] if _is_fit(folder) else _subfolders(folder)
        inside = [candidate for candidate in candidates if _is_fit(candidate)]
        if not inside:
            raise ValueError(f"`fits` must be folders of fits, and there is none in {folder}.")
        found += [(path.resolve().name, path) for path in inside]
    for _, path in found:
        check_path_name("fits", path)
    names = [name for name, _ in found]
    if not found or len({*names}) < len(names):
        raise ValueError(f"`fits` must be at least one, of different names; got {names}.")
    return sorted(found)


def _common_rig(folders: Sequence[Path], flame: dict[str, object]) -> HeadRig:
    """The rig of the first fit that can say what it is on."""
    problem: Exception | None = None
    for folder in folders:
        try:
            return open_rig(read_notes(folder).get("rig"), source=folder, **flame)
        except (OSError, ValueError) as error:
            problem = problem or error
    raise ValueError(f"None of {len(folders)} fits can be read; the first: {problem}")


def _is_fit(folder: Path) -> bool:
    is_original = any(folder.glob("point_cloud/iteration_*/point_cloud.ply"))
    # Ours is under way until its notes are there.
    return (folder / FIT_FILE).is_file() or (
        is_original and not (folder / "checkpoint.safetensors").is_file()
    )


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _card(config: TokenizeConfig, digests: dict[str, str], rig: HeadRig) -> DatasetCard:
    people = json.dumps(digests, sort_keys=True)
    return DatasetCard(
        title="Tokenised avatars",
        description=f"{len(digests)} people fitted with Gaussians on the faces of a "
        f"{type(rig).__name__}.",
        licence=config.licence,
        splits=("train", "test") if config.num_test or config.test_people else ("train",),
        settings=_settings(config) | {"rig_hash": rig_hash(rig)},
        content=hashlib.sha256(people.encode()).hexdigest()[:12],
    )


def _settings(config: TokenizeConfig) -> dict[str, object]:
    """All settings but those of the split that say nothing: cards stay as they were before them."""
    unsaid = {"test_people": (), "test_seed": 0, "person_pattern": None}
    return {
        name: value
        for name, value in asdict(config).items()
        if name not in unsaid or value != unsaid[name]
    }


def _digest(folder: Path) -> str:
    try:
        return fit_digest(folder)
    except (OSError, ValueError):
        return "broken"  # the row will say why


def _row_path(rows_dir: Path, name: str, split: str, digest: str) -> Path:
    """A fit that was made again, or has changed sides, gets a row of its own."""
    return rows_dir / f"{name}-{split}-{digest}.parquet"


def _try_row(
    job: Job,
    config: TokenizeConfig,
    captures_dir: str | Path | None,
    flame: dict[str, object],
    expected_hash: str,
) -> str | None:
    """Writes the row of a fit. Returns what went wrong, if anything did."""
    try:
        person = read_fit(job.folder, **flame)
        if rig_hash(person.rig) != expected_hash:
            return "it is on another rig than the first fit"
        row = tokenize_fit(job.name, job.folder, job.split, person, config, captures_dir)
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    write_rows([row], job.path)
    return None


def _shards(
    output_dir: Path, names: Sequence[str], splits: dict[str, str], config: TokenizeConfig
) -> list[tuple[Path, list[str]]]:
    """Files of the data set with the people in each."""
    shards: list[tuple[Path, list[str]]] = []
    for split in ("train", "test"):
        of_split = [name for name in names if splits[name] == split]
        step = config.identities_per_shard
        parts = [of_split[i : i + step] for i in range(0, len(of_split), step)]
        shards += list(zip(shard_paths(output_dir, split, len(parts)), parts, strict=True))
    return shards


def _is_complete(output_dir: Path, splits: dict[str, str], config: TokenizeConfig) -> bool:
    return all(path.exists() for path, _ in _shards(output_dir, sorted(splits), splits, config))


def _write_shards(
    output_dir: Path,
    rows: dict[str, Path],
    names: Sequence[str],
    splits: dict[str, str],
    config: TokenizeConfig,
) -> None:
    """Joins the rows, and removes shards of an earlier call that knew fewer people."""
    shards = _shards(output_dir, names, splits, config)
    for path, people in shards:
        join_shards([rows[name] for name in people], path)
    for path in {*output_dir.glob("*.parquet")} - {path for path, _ in shards}:
        path.unlink()

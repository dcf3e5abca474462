# SPDX-License-Identifier: Apache-2.0
"""From a folder to a repository of the Hub: what belongs to it, under its licence, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..exporters.json_file import read_json_object, write_json_object
from .artefacts import CARD_FILE, INDEX_FILE, Artefact, find_artefact
from .cards import CardFacts, adapt_card, build_card, join_cards, read_card_licence
from .guard import Terms, settle_licence
from .local_paths import refuse_paths, remove_paths
from .manifest import MANIFEST_FILE, PartLicence
from .part_licences import find_part_licences
from .restrictions import Restriction, find_restrictions
from .upload import check_repo_id, upload

TEXT_SUFFIXES = (".json", ".md")
PERSON = Restriction(
    "gaussians", "may be the likeness of a real person; say in `rights` who it is and who agreed"
)


@dataclass(frozen=True)
class PublishedFile:
    """A file as it is sent."""

    path: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What was sent, or would be."""

    repo_id: str
    licence: str
    files: tuple[PublishedFile, ...]
    url: str | None = None  # of the commit; None: nothing was sent

    @property
    def size(self) -> int:
        """All files together, bytes."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Request:
    """Where something is to be published, and what the publisher says of it."""

    repo_id: str
    terms: Terms = field(default_factory=Terms)
    licences: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # (source, licence)
    facts: CardFacts = field(default_factory=CardFacts)
    private: bool | None = None  # None: as the account has it
    token: str | None = None
    commit_message: str | None = None
    create_pr: bool = False
    dry_run: bool = False
    card: str | Path | None = None  # written by hand, to stand in the place of the folder's


def publish_folder(
    folder: str | Path, request: Request, restrictions: Sequence[Restriction] = ()
) -> Publication:
    """Publishes what a folder holds.

    Nothing is sent before all is known to be allowed, and then in one commit: who pulls meanwhile
    gets what was there before.

    Args:
        folder: With a pipeline, an avatar or a data set.
        request: Where to, and under which terms.
        restrictions: What the caller knows of the rows or the person, beside what files show.

    Raises:
        FileNotFoundError: The folder holds none of them.
        ValueError: It may not be published; the message says why, and what to do.
        OSError: The Hub refused it, or was not reached.
    """
    check_repo_id(request.repo_id)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        staged = stage_folder(folder, Path(place), request, restrictions)
        if request.dry_run:
            return staged
        repo_type = find_artefact(folder).repo_type
        return replace(staged, url=upload(Path(place), repo_type, request))


def stage_folder(
    folder: str | Path,
    stage: Path,
    request: Request,
    restrictions: Sequence[Restriction] = (),
) -> Publication:
    """Puts what would be sent into an empty folder, byte for byte.

    Raises:
        FileNotFoundError: The folder holds nothing that can be published.
        ValueError: It may not be published; the message says why, and what to do.
    """
    artefact = find_artefact(folder)
    _copy(artefact, stage)
    licence = _write_papers(artefact, stage, request, restrictions)
    files = _list_files(stage)
    texts = [stage / file.path for file in files if file.path.endswith(TEXT_SUFFIXES)]
    refuse_paths(texts, (Path.home(), artefact.folder.absolute(), stage, Path.cwd()))
    return Publication(request.repo_id, licence, files)


def _copy(artefact: Artefact, stage: Path) -> None:
    for path in artefact.files:
        target = stage / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = (artefact.folder / path).resolve()
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, target)
        if path.suffix == ".json":
            remove_paths(target)  # which writes a new file, so the source stays as it is


def _write_papers(
    artefact: Artefact, stage: Path, request: Request, restrictions: Sequence[Restriction]
) -> str:
    """Writes card and manifest. Returns the licence of the whole."""
    parts, unknown = find_part_licences(artefact, stage, request.licences)
    person = [PERSON] if artefact.kind == "avatar" else []
    bound = [*find_restrictions(stage, artefact.files), *unknown, *person, *restrictions]
    card = artefact.folder / CARD_FILE
    text = card.read_text("utf-8") if card.is_file() else None
    if request.card is not None:
        text = join_cards(Path(request.card).read_text("utf-8"), text)
    terms = request.terms
    if terms.licence is None and text is not None:
        terms = Terms(read_card_licence(text), terms.rights)
    licence = settle_licence(parts, bound, terms)
    _write_manifest(artefact, stage, licence, parts, bound, terms.rights)
    words = {"repo_id": request.repo_id, "licence": licence, "facts": request.facts}
    if text is None:
        text = build_card(artefact, parts=parts, restrictions=bound, rights=terms.rights, **words)
    else:
        text = adapt_card(text, artefact, rights=terms.rights, **words)
    (stage / CARD_FILE).write_text(text, "utf-8")
    return licence


def _write_manifest(
    artefact: Artefact,
    stage: Path,
    licence: str,
    parts: Mapping[str, PartLicence],
    restrictions: Sequence[Restriction],
    rights: str | None,
) -> None:
    table = {name: asdict(part) for name, part in parts.items()}
    if artefact.kind == "pipeline":
        index = read_json_object(stage / INDEX_FILE)
        write_json_object({**index, "licences": table}, stage / INDEX_FILE)
    manifest = {
        "format_version": 1,
        "licence": licence,
        "parts": table,
        "bound_by": [asdict(one) for one in restrictions],
        "rights": rights,
        "files": {file.path: file.sha256 for file in _list_files(stage)},
    }
    write_json_object(manifest, stage / MANIFEST_FILE)


def _list_files(stage: Path) -> tuple[PublishedFile, ...]:
    found = []
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = PurePosixPath(path.relative_to(stage).as_posix())
            found.append(PublishedFile(str(name), path.stat().st_size, digest))
    return tuple(found)

# SPDX-License-Identifier: Apache-2.0
"""The licence of each part of an artefact, and what is not known of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..exporters.json_file import read_json_object
from .artefacts import INDEX_FILE, PART, Artefact
from .fingerprint import fingerprint_part
from .manifest import OWN_RIG, OWN_SETTINGS, PartLicence, read_parts
from .restrictions import FLAME_CLASS, OPEN_VERSION, Restriction

MEDIAPIPE = PartLicence("MediaPipe 0.10.21, Google", "apache-2.0")
# What comes with everybody's pipeline, by its fingerprint.
KNOWN = {
    "501cec5c5d51fa46983dda9675bb0f5dde75bee24547098b6b6e76884c1f717b": MEDIAPIPE,
    # Without the network of persons.
    "f223e7562724a46425e1c744c478dc11d98fe5491d6b19af722685e98d2b4080": MEDIAPIPE,
}
OPEN_FLAME = PartLicence(
    "FLAME 2023 Open, Max Planck Institute for Intelligent Systems", "cc-by-4.0"
)


def find_part_licences(
    artefact: Artefact, folder: Path, given: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, PartLicence], list[Restriction]]:
    """Licences by part, and the parts whose weights nobody speaks for.

    Args:
        artefact: What the folder holds.
        folder: Where its files lie now.
        given: (source, licence) by part, as the publisher says; it goes before what is written.

    Raises:
        ValueError: `given` names parts that there are none of.
    """
    unknown = {*given} - {*artefact.parts, *_own_parts(artefact)}
    if unknown:
        raise ValueError(
            f"`licences` must name parts of the {artefact.kind} ({', '.join(artefact.parts)}), "
            f"got {', '.join(sorted(unknown))}."
        )
    written = {}
    if artefact.kind == "pipeline":
        written = read_parts(read_json_object(folder / INDEX_FILE).get("licences"))
    parts, restrictions = {}, []
    for name in artefact.parts:
        part = _describe(artefact.find_part(folder, name), written.get(name), given.get(name))
        if part is None:
            where = "`source` and `licence`" if artefact.kind == PART else "`licences`"
            reason = f"has weights whose source and licence are not known; name them in {where}"
            restrictions.append(Restriction(name, reason))
        else:
            parts[name] = part
    for name in _own_parts(artefact):
        if name in given:
            parts[name] = PartLicence(*given[name])
    return parts, restrictions


def _own_parts(artefact: Artefact) -> tuple[str, ...]:
    """Parts that lie in the folder itself."""
    return {"avatar": ("gaussians",), "data set": ("rows",)}.get(artefact.kind, ())


def _describe(
    folder: Path, written: PartLicence | None, given: tuple[str, str] | None
) -> PartLicence | None:
    fingerprint = fingerprint_part(folder)
    if given is not None:
        return PartLicence(*given, fingerprint)
    rig = _describe_rig(folder)
    if rig is not None:
        return PartLicence(rig.source, rig.licence, fingerprint)
    if fingerprint is None:
        return OWN_SETTINGS
    if fingerprint in KNOWN:
        return PartLicence(KNOWN[fingerprint].source, KNOWN[fingerprint].licence, fingerprint)
    # Weights that were changed since are no longer those that the words were written for.
    return written if written is not None and written.fingerprint == fingerprint else None


def _describe_rig(folder: Path) -> PartLicence | None:
    if not (folder / "config.json").is_file():
        return None
    config = read_json_object(folder / "config.json")
    if config.get("_class_name") == "ProceduralHeadRig":
        return OWN_RIG
    if config.get("_class_name") != FLAME_CLASS and "flame_path" not in config:
        return None
    if config.get("version") == OPEN_VERSION:
        return OPEN_FLAME
    return PartLicence(f"FLAME {config.get('version')}, by reference", "other")

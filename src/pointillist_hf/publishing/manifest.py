# SPDX-License-Identifier: Apache-2.0
"""Where each part of a model, avatar or data set comes from, and under which licence.

A pipeline carries the manifest in its config, so that it survives every way of loading it. What is
published carries it as a file too, `licences.json`, with the digest of every file beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .fingerprint import fingerprint_part

MANIFEST_FILE = "licences.json"
# Names of the Hub for "none that is known".
NO_LICENCES = ("", "other", "unknown", "unlicensed")


@dataclass(frozen=True)
class PartLicence:
    """Source and licence of a part, of which the weights with this fingerprint are meant."""

    source: str
    licence: str  # as the Hub names it, for instance apache-2.0
    fingerprint: str | None = None  # None: the part has no weights


OWN_RIG = PartLicence("pointillist_hf: sculpted by formulas, no scan of anybody", "apache-2.0")
OWN_SETTINGS = PartLicence("pointillist_hf: settings, no weights", "apache-2.0")


def read_parts(licences: object) -> dict[str, PartLicence]:
    """Licences by part, from a config.

    Raises:
        ValueError: They are no such table.
    """
    if licences is None:
        return {}
    if not isinstance(licences, Mapping):
        raise ValueError(f"`licences` must name the licence of each part, got {licences!r}.")
    parts = {}
    for name, words in licences.items():
        fields = dict(words) if isinstance(words, Mapping) else {}
        known = {key: fields.get(key) for key in ("source", "licence", "fingerprint")}
        if not isinstance(known["source"], str) or not isinstance(known["licence"], str):
            raise ValueError(
                f"`licences` must give `source` and `licence` of {name}, got {words!r}."
            )
        parts[str(name)] = PartLicence(**known)
    return parts


def describe_parts(
    folder: str | Path, licences: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, str | None]]:
    """The table for a pipeline's config: what you say of the parts that lie in a folder.

    Args:
        folder: Of a saved pipeline.
        licences: (source, licence) by part.

    Raises:
        FileNotFoundError: The folder has no such part.
    """
    table = {}
    for name, (source, licence) in licences.items():
        place = Path(folder) / name
        if not place.is_dir():
            raise FileNotFoundError(f"`licences` must name parts of {folder}, and {name} is none.")
        table[name] = asdict(PartLicence(source, licence, fingerprint_part(place)))
    return table

# SPDX-License-Identifier: Apache-2.0
"""What in a folder others have rights in: found by looking at the files, not by what they say.

FLAME is known by its numbers of vertices and faces, which its licence covers in every shape they
take: arrays, vocabularies, weights bound to its faces. Michelangelo is known by its latents, and
by what its conversion says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..exporters.json_file import read_json_object

# Vertices and faces of FLAME, without and with the paper's teeth.
FLAME_SIZES = {5023, 5143, 9976, 10144}
FLAME_CLASS, OPEN_VERSION = "FlameHeadRig", "2023_open"
MICHELANGELO_LATENTS, LATENT_NAMES = [257, 768], ("latents", "query")
WORDS = {
    "flame": "FLAME, whose licence forbids to pass it on",
    "michelangelo": "Michelangelo, whose weights stand under GPL-3.0 or unspecified terms",
    "nersemble": "NeRSemble, whose recordings of people may not be passed on",
}
HEADER_LIMIT = 2**26


@dataclass(frozen=True)
class Restriction:
    """Why a part may not simply be passed on."""

    part: str
    reason: str


def find_restrictions(folder: Path, files: Iterable[PurePosixPath]) -> list[Restriction]:
    """What the files of a folder are bound to.

    Args:
        folder: That they lie in.
        files: Those that would be published, relative to the folder.
    """
    found, is_open = set(), False
    for path in files:
        part = path.parts[0] if len(path.parts) > 1 else path.stem
        if path.suffix == ".json":
            config = read_json_object(folder / path)
            is_open |= config.get("version") == OPEN_VERSION and _is_flame(config)
            found |= {Restriction(part, reason) for reason in _judge_config(config)}
        elif path.suffix == ".safetensors":
            found |= {Restriction(part, reason) for reason in _judge_tensors(folder / path)}
    if is_open:
        # FLAME 2023 Open stands under CC-BY-4.0, and so does what has its numbers of faces.
        found = {one for one in found if "FLAME" not in one.reason}
    return sorted(found, key=lambda one: (one.part, one.reason))


def name_words(text: str) -> list[str]:
    """Reasons that lie in what somebody writes of a source."""
    text = text.lower().replace("flame 2023 open", "")
    return [reason for word, reason in WORDS.items() if word in text]


def _is_flame(config: Mapping[str, object]) -> bool:
    return config.get("_class_name") == FLAME_CLASS or "flame_path" in config


def _judge_config(config: Mapping[str, object]) -> Iterator[str]:
    if _is_flame(config):
        yield "refers to a FLAME model, whose licence binds what is made with it"
    for name, value in _walk(config):
        if name in ("num_faces", "num_vertices") and value in FLAME_SIZES:
            yield f"is bound to FLAME's mesh (`{name}` {value}), whose licence covers it"
    yield from _judge_encoders(config)


def _judge_encoders(config: Mapping[str, object]) -> Iterator[str]:
    """Encoders of others that a conditioner has inside; those of which it has a source are not."""
    image, points = (
        inside if isinstance(inside := config.get(f"{kind}_config"), Mapping) else {}
        for kind in ("image", "point_cloud")
    )
    if image.get("model_type") == "dinov3_vit" and not config.get("image_encoder_source"):
        yield "holds a DINOv3, whose weights stand under a licence of their own"
    if points.get("origin") == "michelangelo" and not config.get("point_cloud_encoder_source"):
        yield f"holds the encoder of {WORDS['michelangelo']}"


def _walk(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, name)
    else:
        yield name, value


def _judge_tensors(path: Path) -> Iterator[str]:
    for name, entry in read_header(path).items():
        shape = entry.get("shape") or []
        sizes = FLAME_SIZES & {*shape}
        if sizes and len(shape) > 1:
            yield f"holds arrays on FLAME's mesh (`{name}` {shape}), which may not be passed on"
        is_latent = name.split(".")[-2:][0] in LATENT_NAMES
        if is_latent and shape[-2:] == MICHELANGELO_LATENTS:
            yield f"holds latents of the shape of {WORDS['michelangelo']} (`{name}` {shape})"


def read_header(path: Path) -> dict[str, dict[str, object]]:
    """Names and shapes of a .safetensors file, without its tensors.

    Raises:
        ValueError: It is none.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size) if size <= HEADER_LIMIT else b"")
        except ValueError as error:
            raise ValueError(f"`path` must be a .safetensors file, and {path} is none.") from error
    return {name: entry for name, entry in header.items() if name != "__metadata__"}

# SPDX-License-Identifier: Apache-2.0
"""Cards of what is published: metadata for the Hub, and what a reader wants to know first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import (
    CardData,
    DatasetCard,
    DatasetCardData,
    EvalResult,
    ModelCard,
    ModelCardData,
    RepoCard,
)

from ..exporters.json_file import read_json_object
from .artefacts import INDEX_FILE, PART, PART_CONFIGS, PREVIEW_FILE, Artefact
from .manifest import PartLicence
from .restrictions import Restriction

TAGS = ["pointillist", "gaussian-splatting", "head-avatar"]
TASK = "image-to-3d"
SETTINGS_HEAD = "| setting | value |"
CONSENT = (
    "Make and share avatars of yourself, or of people who have agreed to it; say that they are "
    "avatars. Do not use them to deceive, or to speak for anybody."
)
PAPER = "*AvatarPointillist: AutoRegressive 4D Gaussian Avatarization* (CVPR 2026)"
SNIPPETS = {
    "pipeline": """from pointillist_hf import AvatarPipeline

pipe = AvatarPipeline.from_pretrained("{repo_id}")
avatar = pipe("portrait.jpg", seed=0).avatar
avatar.export("avatar.html")""",
    "avatar": """from pointillist_hf import Avatar

avatar = Avatar.from_pretrained("{repo_id}")
frames = avatar.animate(avatar.rig_params(jaw_pose=[0.2, 0, 0])).render()""",
    "data set": """from datasets import load_dataset

rows = load_dataset("{repo_id}", split="train")""",
    "part": """from pointillist_hf import {part}

part = {part}.from_pretrained("{repo_id}")""",
}
LOCAL_DATA = '"data/tiny"'  # where `make checkpoint` draws people
CLASS_NAMES = ("_class_name", "tokenizer_class", "image_processor_type")  # as configs have them
TITLES = {
    "pipeline": "From one portrait to a head of 3D Gaussians that can be moved, with "
    "`pointillist_hf`.",
    "avatar": "A head of 3D Gaussians that can be moved, made with `pointillist_hf`.",
    "data set": "Heads as tokens, made with `pointillist_hf`.",
    "part": "A part of a pipeline of `pointillist_hf`, which makes heads of 3D Gaussians that can "
    "be moved of one portrait.",
}


@dataclass(frozen=True)
class Result:
    """One figure that was measured."""

    metric: str  # as the Hub names it, for instance psnr
    value: float
    dataset: str  # a Hub id, or a name


@dataclass(frozen=True)
class CardFacts:
    """What files do not say, for the metadata of a card."""

    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    results: tuple[Result, ...] = field(default=())


def build_card(
    artefact: Artefact,
    repo_id: str,
    licence: str,
    parts: Mapping[str, PartLicence],
    restrictions: Iterable[Restriction],
    rights: str | None,
    facts: CardFacts,
) -> str:
    """The text of a card for what has none."""
    name = repo_id.split("/")[-1]
    blocks = [f"# {name}", TITLES[artefact.kind]]
    if (artefact.folder / PREVIEW_FILE).is_file():
        blocks.append(f"![{name}]({PREVIEW_FILE})")
    blocks += [f"```python\n{_snippet(artefact, repo_id)}\n```"]
    blocks += [f"After {PAPER}.", "## Parts", _parts_table(parts)]
    if artefact.kind == "pipeline":
        blocks += ["## Settings", _settings_table(artefact.folder)]
    blocks += ["## People", CONSENT, *_rights(rights, restrictions)]
    body = "\n\n".join(block for block in blocks if block)
    return f"---\n{_metadata(artefact, name, licence, facts)}\n---\n{body}\n"


def adapt_card(
    text: str, artefact: Artefact, repo_id: str, licence: str, facts: CardFacts, rights: str | None
) -> str:
    """A card that somebody wrote, with the repository's own id and what its metadata lacks."""
    card = (DatasetCard if artefact.kind == "data set" else ModelCard)(text)
    wanted = _metadata_fields(artefact, repo_id.split("/")[-1], facts)
    for name, value in wanted.items():
        if card.data.get(name) is None and value:
            card.data[name] = value
    card.data["license"] = licence
    body = _own_id(str(card.content), artefact.folder.name, repo_id)
    start = body.index("\n---", 3) + len("\n---")
    # Links out of the repository that the card was written in lead nowhere from here.
    body = body[:start] + re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", body[start:])
    if rights and rights not in body:
        body = f"{body.rstrip()}\n\n" + "\n\n".join(_rights(rights, ())) + "\n"
    snippet = _snippet(artefact, repo_id)
    if f'"{repo_id}"' not in body:
        body = f"{body.rstrip()}\n\n```python\n{snippet}\n```\n"
    return body


def join_cards(written: str, made: str | None) -> str:
    """A card that was written by hand, with the splits and the settings of one that was made."""
    card = RepoCard(written)
    if made is None:
        return written
    other = RepoCard(made)
    data = {**card.data.to_dict(), "configs": other.data.get("configs")}
    head = CardData(**{name: value for name, value in data.items() if value}).to_yaml()
    start = other.text.find(SETTINGS_HEAD)
    settings = other.text[start:] if start >= 0 else ""
    return f"---\n{head}\n---\n{card.text.strip()}\n\n{settings}".rstrip() + "\n"


def _snippet(artefact: Artefact, repo_id: str) -> str:
    """Code that loads the repository."""
    configs = [artefact.folder / name for name in PART_CONFIGS if artefact.kind == PART]
    config = next((read_json_object(path) for path in configs if path.is_file()), {})
    names = [config.get(name) for name in CLASS_NAMES] + [*(config.get("architectures") or ())]
    part = next((name for name in names if name), "")
    return SNIPPETS[artefact.kind].format(repo_id=repo_id, part=part)


def _own_id(text: str, folder_name: str, repo_id: str) -> str:
    """The text, loading the repository where it loads the folder it was written in."""
    path = rf"""(["'])(?:[^"'\n]*/)?{re.escape(folder_name)}/?\2"""
    calls = rf"(from_pretrained|load_dataset)\((?:{path}|{LOCAL_DATA})"
    return re.sub(calls, lambda found: f'{found[1]}("{repo_id}"', text)


def _metadata(artefact: Artefact, name: str, licence: str, facts: CardFacts) -> str:
    kind = DatasetCardData if artefact.kind == "data set" else ModelCardData
    return kind(license=licence, **_metadata_fields(artefact, name, facts)).to_yaml()


def _metadata_fields(artefact: Artefact, name: str, facts: CardFacts) -> dict[str, object]:
    fields: dict[str, object] = {"tags": list(TAGS)}
    if artefact.kind == "data set":
        return fields
    fields["library_name"] = "diffusers" if artefact.kind == "pipeline" else "pointillist_hf"
    fields["pipeline_tag"] = TASK if artefact.kind == "pipeline" else None
    fields |= {"base_model": facts.base_model, "datasets": list(facts.datasets) or None}
    if facts.results:
        fields["model_name"] = name
        fields["eval_results"] = [
            EvalResult(
                task_type=TASK,
                dataset_type=one.dataset,
                dataset_name=one.dataset.split("/")[-1],
                metric_type=one.metric,
                metric_value=one.value,
            )
            for one in facts.results
        ]
    return {key: value for key, value in fields.items() if value is not None}


def _parts_table(parts: Mapping[str, PartLicence]) -> str:
    rows = [f"| {name} | {part.source} | {part.licence} |" for name, part in parts.items()]
    return "\n".join(["| part | source | licence |", "| --- | --- | --- |", *rows])


def _settings_table(folder: Path) -> str:
    index = read_json_object(folder / INDEX_FILE)
    rows = [
        f"| `{name}` | {value} |"
        for name, value in index.items()
        if not name.startswith("_") and not isinstance(value, list | dict)
    ]
    return "\n".join([SETTINGS_HEAD, "| --- | --- |", *rows])


def _rights(rights: str | None, restrictions: Iterable[Restriction]) -> list[str]:
    bound = [f"- {one.part} {one.reason}" for one in restrictions]
    blocks = ["\n".join(bound)] if bound else []
    return [*blocks, f"The publisher states: {rights.strip()}"] if rights else blocks


def read_card_licence(text: str) -> str | None:
    """The licence that a card names."""
    licence = RepoCard(text).data.get("license")
    return licence if isinstance(licence, str) else None

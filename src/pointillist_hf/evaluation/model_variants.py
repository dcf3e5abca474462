# SPDX-License-Identifier: Apache-2.0
"""Models trained in several ways, and several times each: the rows of Table 2 from one folder.

    ablation/
      variants.json                           titles of the rows, in their order; optional
      <variant>/seed_<number>/<part>/         takes the place of the shared model's part, as
                                              `save_pretrained` writes it: gaussian_decoder ...
      <variant>/seed_<number>/pipeline.json   settings of the pipeline that differ; optional

A variant that was trained once needs no folder of a seed. A folder with a model_index.json is a
whole pipeline and shares nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ..exporters.json_file import read_json_object
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.modeling_rig_regressor import RigRegressor
from ..models.tokenization_points import PointTokenizer
from ..pipeline_avatar import AvatarPipeline
from ..pretrained.weights_files import file_sha256

TITLES_FILE, SETTINGS_FILE, WHOLE_FILE = "variants.json", "pipeline.json", "model_index.json"
SEEDS = "seed_*"
PARTS = {
    "rig_regressor": RigRegressor,
    "conditioner": AvatarConditioner,
    "tokenizer": PointTokenizer,
    "point_generator": PointGeneratorForCausalLM,
    "gaussian_decoder": GaussianDecoder,
}


def find_variants(folder: str | Path) -> dict[str, list[Path]]:
    """The folders of each variant's trainings, by its title.

    Raises:
        FileNotFoundError: There is no such folder, or no variant in it.
        ValueError: A folder holds nothing of a model, or titles are of other folders.
    """
    folder = Path(folder)
    names = sorted(path.name for path in folder.glob("*/") if not path.name.startswith("."))
    if not names:
        raise FileNotFoundError(f"`variants` must be a folder of variants, and {folder} has none.")
    titles = dict.fromkeys(names)
    if (folder / TITLES_FILE).is_file():
        titles = read_json_object(folder / TITLES_FILE)
        if {*titles} != {*names} or len({*titles.values()}) != len(titles):
            raise ValueError(
                f"{folder / TITLES_FILE} must give a title of its own to each of "
                f"{', '.join(names)}, got {titles}."
            )
    found = {}
    for name, title in titles.items():
        trainings = sorted(path for path in (folder / name).glob(SEEDS) if path.is_dir())
        found[str(title or name)] = trainings or [folder / name]
    for path in (path for trainings in found.values() for path in trainings):
        if not any((path / name).exists() for name in (*PARTS, SETTINGS_FILE, WHOLE_FILE)):
            raise ValueError(
                f"`variants` must hold {WHOLE_FILE}, {SETTINGS_FILE} or one of the folders "
                f"{', '.join(PARTS)} in each of its folders, and {path} has none of them."
            )
    return found


def load_variant(model: str, folder: str | Path | None) -> AvatarPipeline:
    """A pipeline with the parts and settings of a folder in place of its own, in float32."""
    if folder is None:
        return AvatarPipeline.from_pretrained(model)
    folder = Path(folder)
    if (folder / WHOLE_FILE).is_file():
        return AvatarPipeline.from_pretrained(folder)
    parts = {
        name: part.from_pretrained(folder / name)
        if part is PointTokenizer
        else part.from_pretrained(folder / name, dtype=torch.float32)
        for name, part in PARTS.items()
        if (folder / name).is_dir()
    }
    settings = folder / SETTINGS_FILE
    changed = read_json_object(settings) if settings.is_file() else {}
    return AvatarPipeline.from_pretrained(model, **parts, **changed)


def model_digest(*folders: str | Path | None) -> str | None:
    """SHA-256 over all files of models; None if one of them is not on this disk."""
    digest = hashlib.sha256()
    for folder in folders:
        if folder is None:
            continue
        if not Path(folder).is_dir():
            return None
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)}|{file_sha256(path)}|".encode())
    return digest.hexdigest()

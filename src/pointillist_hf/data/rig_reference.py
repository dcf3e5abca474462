# SPDX-License-Identifier: Apache-2.0
"""Which rig a file on disk was made for, in a few words that can be checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import pad

from ..exporters.json_file import read_json_object
from ..exporters.tensor_file import read_tensor_names
from ..geometry.structures import Capture
from ..rigs.array_checks import check_rig_arrays
from ..rigs.flame.model_file import OFFICIAL_NAMES
from ..rigs.flame_rig import PATH_VARIABLE, FlameHeadRig
from ..rigs.head_rig import HeadRig
from ..rigs.procedural_rig import ProceduralHeadRig

ARRAYS_FILE = "diffusion_pytorch_model.safetensors"  # of a saved rig
HASHED_ARRAYS = ("v_template", "faces", "shapedirs", "exprdirs", "lbs_weights")


def rig_hash(rig: HeadRig) -> str:
    """What tells rigs apart: a digest of the arrays that parameters and bindings refer to."""
    digest = hashlib.sha256()
    for name in HASHED_ARRAYS:
        # Rounded, because the last bits depend on the machine that built the arrays.
        array = getattr(rig, name).detach().cpu()
        rounded = (array * 1e6).round().to(torch.int64) if array.is_floating_point() else array
        digest.update(rounded.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_rig(rig: HeadRig) -> dict[str, str | bool]:
    """The words for a rig that `open_rig` understands."""
    words: dict[str, str | bool] = {"class": type(rig).__name__, "hash": rig_hash(rig)}
    keys = ("version", "add_teeth") if isinstance(rig, FlameHeadRig) else ("resolution",)
    return words | {key: rig.config[key] for key in keys if key in rig.config}


def open_rig(
    words: Mapping[str, object] | None,
    *,
    source: str | Path,
    flame_path: str | Path | None = None,
    flame_version: str | None = None,
) -> HeadRig:
    """The rig that a file was made for.

    Args:
        words: From `describe_rig`; None, as in files of other programs, means FLAME with teeth.
        source: The file, for messages.
        flame_path: The user's FLAME; by default what FLAME_MODEL names.
        flame_version: Which release it is, if neither its name nor `words` say.

    Raises:
        FileNotFoundError: It is FLAME, and there is none.
        ValueError: The rig is unknown, or is no longer the one that the file was made for.
    """
    words = words or {"class": FlameHeadRig.__name__}
    if not isinstance(words, Mapping) or not all(isinstance(v, str | bool) for v in words.values()):
        raise ValueError(f"The rig in {source} must be described by words, got {words!r}.")
    if words.get("class") == ProceduralHeadRig.__name__:
        rig: HeadRig = ProceduralHeadRig(words.get("resolution", "full"))
    elif words.get("class") == FlameHeadRig.__name__:
        rig = _open_flame(words, source, flame_path, flame_version)
    else:
        raise ValueError(f"`class` of the rig in {source} is unknown: {words.get('class')!r}.")
    if "hash" in words and words["hash"] != rig_hash(rig):
        raise ValueError(
            f"{source} was made for another {words['class']} than this one (hash {words['hash']}, "
            f"got {rig_hash(rig)}). Make it again, or use the version that made it."
        )
    return rig


def _open_flame(
    words: Mapping[str, object],
    source: str | Path,
    flame_path: str | Path | None,
    flame_version: str | None,
) -> FlameHeadRig:
    path = flame_path or os.environ.get(PATH_VARIABLE)
    if path is not None and Path(path).is_dir():
        path = _only_flame(Path(path), words.get("version"))
    if path is None:
        raise FileNotFoundError(
            f"{source} needs FLAME, which this package may not contain: pass the path of your "
            f"file, or set {PATH_VARIABLE} to it."
        )
    rig = FlameHeadRig.from_flame(
        path, add_teeth=bool(words.get("add_teeth", True)), version=flame_version
    )
    if "version" in words and words["version"] != rig.config.version:
        raise ValueError(
            f"{source} was made with FLAME {words['version']}, and {path} is "
            f"{rig.config.version}. Their coefficients mean different shapes: use the same "
            "version, or track the person again."
        )
    return rig


def open_saved_rig(folder: str | Path) -> HeadRig:
    """The rig of a folder that `save_pretrained` wrote, of whatever class.

    Raises:
        FileNotFoundError: The folder holds no rig, or a reference to a FLAME that is not there.
        ValueError: The rig is of no known class.
    """
    path = Path(folder) / HeadRig.config_name
    if not path.is_file():
        raise FileNotFoundError(f"`folder` must hold a rig, and there is no {path}.")
    name = read_json_object(path).get("_class_name", FlameHeadRig.__name__)
    classes = {cls.__name__: cls for cls in (ProceduralHeadRig, FlameHeadRig)}
    if not isinstance(name, str) or name not in classes:
        raise ValueError(f"{path} is of a rig that is not known: {name!r}.")
    if name == ProceduralHeadRig.__name__:
        read_tensor_names(Path(folder) / ARRAYS_FILE)  # whose errors say more than diffusers'
    rig = classes[name].from_pretrained(folder)
    check_rig_arrays(rig)
    return rig


def _only_flame(folder: Path, version: object) -> Path:
    """The FLAME model of a folder, of that version if one is named."""
    found = [p for p in sorted(folder.iterdir()) if OFFICIAL_NAMES.get(p.stem.lower())]
    found = [p for p in found if version in (None, OFFICIAL_NAMES[p.stem.lower()])]
    if len(found) != 1:
        raise ValueError(
            f"{folder} must hold one FLAME model{f' of version {version}' if version else ''}, "
            f"got {', '.join(p.name for p in found) or 'none'}; name the file itself."
        )
    return found[0]


def match_rig(capture: Capture, rig: HeadRig) -> Capture:
    """The capture with parameters as wide as the rig's: trackers may know fewer coefficients.

    Raises:
        ValueError: They are wider, so they belong to another rig.
    """
    params = capture.rig_params
    widths = {"betas": rig.num_betas, "expression": rig.num_expressions}
    padded = {
        name: pad(value, (0, max(0, width - value.shape[1])))
        for name, width in widths.items()
        for value in [getattr(params, name)]
    }
    matched = replace(capture, rig_params=replace(params, **padded))
    rig.check_params(matched.rig_params)
    return matched

# SPDX-License-Identifier: Apache-2.0
"""Which rig a file on disk was made for, in a few words that can be checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..rigs.flame_rig import PATH_VARIABLE, FlameHeadRig
from ..rigs.head_rig import HeadRig
from ..rigs.procedural_rig import ProceduralHeadRig

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
    words: Mapping[str, object] | None, *, source: str | Path, flame_path: str | Path | None = None
) -> HeadRig:
    """The rig that a file was made for.

    Args:
        words: From `describe_rig`; None, as in files of other programs, means FLAME with teeth.
        source: The file, for messages.
        flame_path: The user's FLAME; by default what FLAME_MODEL names.

    Raises:
        FileNotFoundError: It is FLAME, and there is none.
        ValueError: The rig is unknown, or is no longer the one that the file was made for.
    """
    words = words or {"class": FlameHeadRig.__name__}
    if words.get("class") == ProceduralHeadRig.__name__:
        rig: HeadRig = ProceduralHeadRig(words.get("resolution", "full"))
    elif words.get("class") == FlameHeadRig.__name__:
        rig = _open_flame(words, source, flame_path)
    else:
        raise ValueError(f"`class` of the rig in {source} is unknown: {words.get('class')!r}.")
    if "hash" in words and words["hash"] != rig_hash(rig):
        raise ValueError(
            f"{source} was made for another {words['class']} than this one (hash {words['hash']}, "
            f"got {rig_hash(rig)}). Make it again, or use the version that made it."
        )
    return rig


def _open_flame(
    words: Mapping[str, object], source: str | Path, flame_path: str | Path | None
) -> FlameHeadRig:
    path = flame_path or os.environ.get(PATH_VARIABLE)
    if path is None:
        raise FileNotFoundError(
            f"{source} needs FLAME, which this package may not contain: pass the path of your "
            f"file, or set {PATH_VARIABLE} to it."
        )
    rig = FlameHeadRig.from_flame(path, add_teeth=bool(words.get("add_teeth", True)))
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
    name = json.loads(path.read_text()).get("_class_name", FlameHeadRig.__name__)
    classes = {cls.__name__: cls for cls in (ProceduralHeadRig, FlameHeadRig)}
    if name not in classes:
        raise ValueError(f"{path} is of a rig that is not known: {name!r}.")
    return classes[name].from_pretrained(folder)

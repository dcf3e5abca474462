# SPDX-License-Identifier: Apache-2.0
"""FLAME's model files as checked arrays, from the official pickles or from conversions of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..archive import read_archive
from .array_decoding import decode_array, unwrap_dictionary
from .restricted_pickle import load_records

FlameVersion = Literal[
    "2020",  # generic, male and female model
    "2023",  # with a jaw joint
    "2023_no_jaw",  # the jaw opens in the expression space
    "2023_open",  # the release under CC-BY-4.0
]
OFFICIAL_NAMES: dict[str, FlameVersion] = {
    "generic_model": "2020",
    "male_model": "2020",
    "female_model": "2020",
    "flame2020": "2020",
    "flame2023": "2023",
    "flame2023_no_jaw": "2023_no_jaw",
    "flame2023_open": "2023_open",
}
WHERE = "register at https://flame.is.tue.mpg.de, accept the licence and download FLAME"

NUM_VERTICES, NUM_FACES, NUM_JOINTS = 5023, 9976, 5
NUM_IDENTITY, NUM_POSE_FEATURES = 300, 9 * (NUM_JOINTS - 1)
PARENTS = (-1, 0, 1, 1, 1)  # root, neck, jaw, left eye, right eye

# Names in the files, with the shapes they must have; None is any.
FILE_SHAPES = {
    "v_template": (NUM_VERTICES, 3),
    "f": (NUM_FACES, 3),
    "shapedirs": (NUM_VERTICES, 3, None),
    "posedirs": (NUM_VERTICES, 3, NUM_POSE_FEATURES),
    "J_regressor": (NUM_JOINTS, NUM_VERTICES),
    "weights": (NUM_VERTICES, NUM_JOINTS),
    "kintree_table": (2, NUM_JOINTS),
}


@dataclass(frozen=True, eq=False)
class FlameArrays:
    """A FLAME model: numbers in float32, ids in int64."""

    v_template: np.ndarray  # [V, 3] metres
    faces: np.ndarray  # [F, 3] counter-clockwise seen from outside
    shapedirs: np.ndarray  # [V, 3, S] metres
    exprdirs: np.ndarray  # [V, 3, E] metres
    posedirs: np.ndarray  # [V, 3, 36] metres
    J_regressor: np.ndarray  # [5, V]
    lbs_weights: np.ndarray  # [V, 5] rows sum to one
    version: FlameVersion
    sha256: str  # of the official file, also where a conversion was read


def read_flame(path: str | Path, *, version: FlameVersion | None = None) -> FlameArrays:
    """The model in a file.

    Args:
        path: An official .pkl, or an .npz or .safetensors with the same names.
        version: Which release it is; the default reads it off the file's official name or, of a
            conversion, off what `convert_flame` wrote into it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or hostile, is no FLAME model, or its version is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a FLAME model, and there is no file at {path}. FLAME may not be "
            f"passed on with this package: {WHERE}."
        )
    if path.suffix not in READERS:
        known = ", ".join(READERS)
        raise ValueError(f"`path` must end in one of {known}, got {path.name!r}.")
    values, notes = READERS[path.suffix](path)
    return _check_arrays(
        values,
        version=_choose_version(path, version, notes.get("version")),
        sha256=notes.get("sha256") or file_sha256(path),
        path=path,
    )


def convert_flame(
    path: str | Path, output: str | Path, *, version: FlameVersion | None = None
) -> FlameArrays:
    """Writes a model as .safetensors, so that no pickle has to be read again.

    The file is a copy of FLAME and stands under FLAME's licence.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"`output` must end in .safetensors, got {output.name!r}.")
    arrays = read_flame(path, version=version)
    tensors = {
        "v_template": arrays.v_template,
        "f": arrays.faces,
        "shapedirs": np.concatenate([arrays.shapedirs, arrays.exprdirs], axis=-1),
        "posedirs": arrays.posedirs,
        "J_regressor": arrays.J_regressor,
        "weights": arrays.lbs_weights,
        "kintree_table": np.stack([np.array(PARENTS), np.arange(NUM_JOINTS)]),
    }
    notes = {"version": arrays.version, "sha256": arrays.sha256}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    try:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial, metadata=notes)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return arrays


def origin_sha256(path: Path) -> str | None:
    """SHA-256 of the official file that a model file is or comes from; None if it is not noted."""
    if path.suffix != ".safetensors":
        return file_sha256(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("sha256")
    except SafetensorError:
        return None


def file_sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Readers: values by name, and what a conversion says about its origin -----------------------------


def _read_pickle(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    try:
        return unwrap_dictionary(load_records(path.read_bytes(), path)), {}
    except ValueError as error:
        raise ValueError(f"{path} is refused as a FLAME model: {error}.") from error


def _read_npz(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    return read_archive(path, FILE_SHAPES), {}


def _read_safetensors(path: Path) -> tuple[dict[str, object], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            known = [name for name in FILE_SHAPES if name in file.keys()]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in known}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as .safetensors: {error}.") from error


READERS = {".pkl": _read_pickle, ".npz": _read_npz, ".safetensors": _read_safetensors}


# Checks -------------------------------------------------------------------------------------------


def _choose_version(path: Path, given: str | None, noted: str | None) -> FlameVersion:
    if noted and given and noted != given:
        raise ValueError(
            f"`version` is {given!r}, and {path} was made from FLAME {noted}. Coefficients of one "
            "version mean nothing in another."
        )
    version = given or noted or OFFICIAL_NAMES.get(path.stem.lower())
    if version not in get_args(FlameVersion):
        known = ", ".join(get_args(FlameVersion))
        raise ValueError(
            f"`version` must be one of {known}, got {version!r}; the name {path.name!r} does not "
            "say which release this is. Commands call it --flame-version, or --version in "
            "convert-flame."
        )
    return version


def _check_arrays(
    values: Mapping[str, object], *, version: FlameVersion, sha256: str, path: Path
) -> FlameArrays:
    arrays = {name: _check_array(name, values, path) for name in FILE_SHAPES}
    for name in ("f", "kintree_table"):
        if (arrays[name] != np.round(arrays[name])).any():
            raise ValueError(f"`{name}` of {path} must hold whole numbers, got fractions.")
    faces = arrays["f"].astype(np.int64)
    if faces.min() < 0 or faces.max() >= NUM_VERTICES:
        raise ValueError(f"`f` of {path} names vertices that are not there.")
    parents = arrays["kintree_table"][0].astype(np.int64)
    if tuple(parents[1:]) != PARENTS[1:]:
        raise ValueError(f"`kintree_table` of {path} is not FLAME's: {parents.tolist()}.")
    if np.abs(arrays["weights"].sum(1) - 1).max() > 1e-3 or arrays["weights"].min() < -1e-6:
        raise ValueError(f"`weights` of {path} must be shares that sum to one at each vertex.")
    if arrays["shapedirs"].shape[2] <= NUM_IDENTITY:
        raise ValueError(
            f"`shapedirs` of {path} must have {NUM_IDENTITY} identity directions and then those of "
            f"the expressions, got {arrays['shapedirs'].shape[2]} in all."
        )

    def single(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array, dtype=np.float32)

    return FlameArrays(
        v_template=single(arrays["v_template"]),
        faces=faces,
        shapedirs=single(arrays["shapedirs"][..., :NUM_IDENTITY]),
        exprdirs=single(arrays["shapedirs"][..., NUM_IDENTITY:]),
        posedirs=single(arrays["posedirs"]),
        J_regressor=single(arrays["J_regressor"]),
        lbs_weights=single(arrays["weights"]),
        version=version,
        sha256=sha256,
    )


def _check_array(name: str, values: Mapping[str, object], path: Path) -> np.ndarray:
    if name not in values:
        raise ValueError(f"{path} must hold `{name}`: it is no FLAME model.")
    try:
        array = decode_array(values[name])
    except ValueError as error:
        raise ValueError(f"`{name}` of {path} is refused: {error}.") from error
    expected = FILE_SHAPES[name]
    fits = array.ndim == len(expected) and all(
        want in (None, got) for want, got in zip(expected, array.shape, strict=True)
    )
    if not fits:
        wanted = re.sub("None", "*", str(expected))
        raise ValueError(f"`{name}` of {path} must have shape {wanted}, got {array.shape}.")
    # NaN fails the comparison, and so does what is finite in double precision only.
    if array.dtype.kind not in "fiu" or not (np.abs(array) < np.finfo(np.float32).max).all():
        raise ValueError(f"`{name}` of {path} must hold finite numbers.")
    return array

# SPDX-License-Identifier: Apache-2.0
"""The user's FLAME as a rig. Saved by reference: the licence forbids to pass FLAME on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from .flame.landmark_file import read_landmarks
from .flame.model_file import PARENTS, WHERE, FlameArrays, FlameVersion, origin_sha256, read_flame
from .flame.teeth import add_teeth as with_teeth
from .head_rig import HeadRig

# Where a saved rig looks for the file if it is not where it was: a file, or a folder of files.
PATH_VARIABLE = "FLAME_MODEL"


class FlameHeadRig(HeadRig):
    """FLAME with 300 identity and 100 expression components, and teeth if wanted.

    Use `from_flame`. `save_pretrained` writes where the file was and its SHA-256, no numbers of
    FLAME; `from_pretrained` finds the file again, there or through the variable FLAME_MODEL.

    Args:
        flame_path: The model file, see `read_flame`.
        version: Which release it is; by default read off the file's name.
        add_teeth: Whether to add the 168 faces that make the paper's 10,144.
        landmarks_path: An embedding of the 68 landmarks, which FLAME offers as a separate file.
        sha256: Of the official file, to be checked.

    Example:
        >>> rig = FlameHeadRig.from_flame("flame2023.pkl")
        >>> rig.num_faces
        10144
    """

    @register_to_config
    def __init__(
        self,
        flame_path: str,
        version: str | None = None,
        add_teeth: bool = True,
        landmarks_path: str | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        flame = read_flame(flame_path, version=version)
        if sha256 is not None and flame.sha256 != sha256:
            raise ValueError(
                f"`sha256` of {flame_path} must be {sha256}, got {flame.sha256}: this is another "
                "file than the one the rig was saved with, perhaps of another version of FLAME."
            )
        self.register_to_config(version=flame.version, sha256=flame.sha256)
        self._register_arrays(with_teeth(flame) if add_teeth else flame)
        self._register_landmarks(landmarks_path)

    @classmethod
    def from_flame(
        cls,
        path: str | Path,
        add_teeth: bool = True,
        *,
        version: FlameVersion | None = None,
        landmarks: str | Path | None = None,
    ) -> Self:
        """The rig of a model file; the arguments are those of the class."""
        return cls(
            flame_path=str(Path(path).absolute()),
            version=version,
            add_teeth=add_teeth,
            landmarks_path=None if landmarks is None else str(Path(landmarks).absolute()),
        )

    def _register_arrays(self, flame: FlameArrays) -> None:
        self.shape_names = tuple(f"shape_{i:03d}" for i in range(flame.shapedirs.shape[2]))
        self.expression_names = tuple(f"expression_{i:03d}" for i in range(flame.exprdirs.shape[2]))
        arrays = {
            "v_template": flame.v_template,
            "shapedirs": flame.shapedirs,
            "exprdirs": flame.exprdirs,
            "posedirs": flame.posedirs,
            "J_regressor": flame.J_regressor,
            "lbs_weights": flame.lbs_weights,
            "faces": flame.faces,
            "parents": np.array(PARENTS),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))

    def _register_landmarks(self, path: str | None) -> None:
        faces, barycentric = np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
        if path is not None:
            faces, barycentric = read_landmarks(path, num_faces=self.num_faces)
        self.register_buffer("landmark_faces", torch.from_numpy(faces))
        self.register_buffer("landmark_barycentric", torch.from_numpy(barycentric))

    def load_landmarks(self, path: str | Path) -> None:
        """Takes the 68 landmarks of a file, in place of those it has.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or made for another mesh.
        """
        path = str(Path(path).absolute())
        self._register_landmarks(path)
        self.register_to_config(landmarks_path=path)

    def landmarks(self, vertices: Tensor) -> Tensor:
        """The 68 iBUG landmarks on posed vertices. [T, V, 3] -> [T, 68, 3]"""
        if not len(self.landmark_faces):
            raise ValueError(
                "`landmarks` must be given to `from_flame` before landmarks can be computed: the "
                f"embedding is a separate download (landmark_embedding_with_eyes.npy; {WHERE})."
            )
        return super().landmarks(vertices)

    def save_pretrained(self, save_directory: str | Path, **kwargs: object) -> None:
        """Writes the reference to FLAME, and none of its numbers.

        Raises:
            ValueError: `push_to_hub` is set: the path of your file means nothing to others.
        """
        if kwargs.get("push_to_hub"):
            self.push_to_hub()
        self.save_config(save_directory)

    def push_to_hub(self, *_: object, **__: object) -> None:
        """Refused: the path of your file means nothing to others.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "`push_to_hub` must not be set for a FLAME rig: its licence forbids to pass it on, and "
            "a reference to your own file helps nobody else."
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        flame_path: str | Path | None = None,
        landmarks_path: str | Path | None = None,
        **kwargs: object,
    ) -> Self:
        """The rig behind a reference that `save_pretrained` wrote.

        Args:
            folder: With the reference.
            flame_path: Where the model file is; by default where it was, or under FLAME_MODEL.
            landmarks_path: Where the landmarks are; by default where they were.
            **kwargs: Those of diffusers, for weights that there are none of.

        Raises:
            FileNotFoundError: The model file is not found; the message names all places.
        """
        reference = Path(folder, kwargs.pop("subfolder", None) or "", cls.config_name)
        if not reference.is_file():
            raise FileNotFoundError(f"`folder` must hold {cls.config_name}, and {folder} does not.")
        config = json.loads(reference.read_text(encoding="utf-8"))
        missing = {"flame_path", "version", "sha256"} - {*config}
        if missing:
            raise ValueError(
                f"{reference} must be a reference to FLAME, and lacks "
                f"{', '.join(sorted(missing))}; save the rig again."
            )
        model = _find_flame(config, flame_path)
        landmarks_path = landmarks_path or _find_landmarks(config.get("landmarks_path"), model)
        return cls(
            flame_path=str(model),
            version=config["version"],
            add_teeth=config.get("add_teeth", True),
            landmarks_path=None if landmarks_path is None else str(landmarks_path),
            sha256=config["sha256"],
        )


def take_landmarks(rig: HeadRig, path: str | Path) -> None:
    """Gives a FLAME rig its landmarks.

    Raises:
        ValueError: It is no FLAME rig, or the file is none of landmarks.
    """
    if not isinstance(rig, FlameHeadRig):
        raise ValueError(f"`landmarks` are for FLAME alone, and this is a {type(rig).__name__}.")
    rig.load_landmarks(path)


def _find_landmarks(noted: str | None, model: Path) -> Path | None:
    """Where the landmarks were, or else beside the model."""
    if noted is None or Path(noted).is_file():
        return None if noted is None else Path(noted)
    beside = model.parent / Path(noted).name
    return beside if beside.is_file() else Path(noted)


def _find_flame(config: Mapping[str, str], given: str | Path | None) -> Path:
    """The model file that a reference means."""
    if given is not None:
        return Path(given)
    looked_at = [Path(config["flame_path"])]
    if os.environ.get(PATH_VARIABLE):
        place = Path(os.environ[PATH_VARIABLE])
        looked_at += sorted(place.iterdir()) if place.is_dir() else [place]
    existing = [path for path in looked_at if path.is_file()]
    same = [path for path in existing if origin_sha256(path) == config["sha256"]]
    # A file of that name is read and then refused, with a better message than "not found".
    named = [path for path in existing if path.name == looked_at[0].name]
    for path in [*same, *named]:
        return path
    places = ", ".join(str(path) for path in looked_at)
    raise FileNotFoundError(
        f"This rig needs FLAME {config['version']} (SHA-256 {config['sha256']}), and it "
        f"was not found; looked at: {places}. Set {PATH_VARIABLE} to the file or its folder, or "
        f"pass `flame_path`. If you do not have it: {WHERE}."
    )

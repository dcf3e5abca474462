# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's networks, run by OpenCV: detection, landmarks, iris, matte, person.

The files are Google's, under the Apache licence. OpenCV reads them as they are, from the very bytes
whose checksums were compared.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

DETECTION_FILE = "face_detection_short_range.tflite"
LANDMARK_FILE = "face_landmark.tflite"
IRIS_FILE = "iris_landmark.tflite"
MATTE_FILE = "selfie_segmentation.tflite"
NETWORK_FILES = (DETECTION_FILE, LANDMARK_FILE, IRIS_FILE, MATTE_FILE)
PERSON_FILE = "pose_landmark_full.tflite"  # a tracker may lack it
# The licence asks that both go where the networks go.
LEGAL_FILES = ("LICENSE.txt", "NOTICE.txt")  # diffusers wants a dot in every name
SOURCE = "They come with MediaPipe 0.10.21 and lie in the `portrait_tracker` folder of a checkpoint"


class FaceNetwork:
    """One network: pictures in, named arrays out. Threads may share it; they wait for each other.

    Args:
        contents: Of a tflite file.
    """

    def __init__(self, contents: bytes) -> None:
        self._net = cv2.dnn.readNetFromTFLite(np.frombuffer(contents, np.uint8))
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._lock = threading.Lock()

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by the name it has in the file.

        Args:
            picture: [H, W, 3] float32, in the range that the network wants.
        """
        channels_first = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])
        with self._lock:
            self._net.setInput(channels_first)
            outputs = self._net.forward(self._outputs)
        return dict(zip(self._outputs, outputs, strict=True))


class FaceNetworks:
    """The networks and the legal texts that go with them.

    Args:
        files: Contents by file name: `NETWORK_FILES` and `LEGAL_FILES`, and `PERSON_FILE` if it is
            there.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.detection, self.landmark, self.iris, self.matte = (
            FaceNetwork(self.files[name]) for name in NETWORK_FILES
        )
        person = self.files.get(PERSON_FILE)
        self.person = None if person is None else FaceNetwork(person)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""
        return {name: _sha256(contents) for name, contents in self.files.items()}

    @classmethod
    def read(cls, folder: Path, checksums: Mapping[str, str]) -> FaceNetworks:
        """The networks of a folder.

        Args:
            folder: Where the files lie.
            checksums: SHA-256 that each file must have, by its name.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is not the one that was saved, or no checksum is known.
        """
        optional = [PERSON_FILE] if PERSON_FILE in checksums else []
        return cls({name: _read_file(folder, name, checksums) for name in (*_FILES, *optional)})

    def write(self, folder: Path) -> None:
        """Writes the files as they were read."""
        for name, contents in self.files.items():
            (folder / name).write_bytes(contents)


_FILES = (*NETWORK_FILES, *LEGAL_FILES)


def _sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def _read_file(folder: Path, name: str, checksums: Mapping[str, str]) -> bytes:
    path = folder / name
    if name not in checksums:
        raise ValueError(
            f"`checksums` must name {name}, and the config in {folder} does not. Restore its "
            "config.json from the checkpoint."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"`{name}` (sha256 {checksums[name]}) must lie in the tracker's folder, and there is "
            f"none at {path}. {SOURCE}: copy it from there."
        )
    contents = path.read_bytes()
    if _sha256(contents) != checksums[name]:
        raise ValueError(
            f"`{name}` must have sha256 {checksums[name]}, and {path} ({len(contents):,} bytes) "
            f"has {_sha256(contents)}: it is damaged or another file. {SOURCE}: copy it from there."
        )
    return contents

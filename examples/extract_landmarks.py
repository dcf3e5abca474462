# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's 478 landmarks of a benchmark and of renders, for the metric AKD.

    python -m venv mediapipe && mediapipe/bin/pip install mediapipe==0.10.21
    mediapipe/bin/python examples/extract_landmarks.py BENCHMARK --renders LAM=renders/lam

It stands alone, because that version, the last one that brings its models, needs numpy < 2. Each
picture gets an array [478, 3] of pixels at the size of the manifest, NaN where there is no face.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mediapipe
import numpy as np
from PIL import Image

NUM_LANDMARKS = 478


def find_landmarks(mesh: object, path: Path, size: int) -> np.ndarray:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    faces = mesh.process(pixels).multi_face_landmarks
    if not faces:
        return np.full((NUM_LANDMARKS, 3), np.nan, np.float32)
    # z has the scale of x.
    return size * np.array([(p.x, p.y, p.z) for p in faces[0].landmark], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--renders", action="append", default=[], metavar="SYSTEM=FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=Path("landmarks.npz"))
    arguments = parser.parse_args()
    size = json.loads((arguments.benchmark / "manifest.json").read_text())["image_size"]
    folders = {"targets": arguments.benchmark / "targets"}
    folders |= {name: Path(folder) for name, folder in (r.split("=", 1) for r in arguments.renders)}
    # Every picture by itself: following a face through pictures would depend on their order.
    options = {"static_image_mode": True, "refine_landmarks": True, "max_num_faces": 1}
    found = {}
    with mediapipe.solutions.face_mesh.FaceMesh(**options) as mesh:
        for name, folder in folders.items():
            for path in sorted(folder.glob("*.png")):
                found[f"{name}/{path.stem}"] = find_landmarks(mesh, path, size)
    np.savez_compressed(arguments.output, **found)
    missed = sum(bool(np.isnan(points).any()) for points in found.values())
    print(f"{len(found)} pictures, {missed} without a face: {arguments.output}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's 478 landmarks of a benchmark and of renders, for the metric AKD.

    python -m venv mediapipe && mediapipe/bin/pip install mediapipe==0.10.21
    mediapipe/bin/python examples/extract_landmarks.py BENCHMARK renders/lam renders/gag

It stands alone, because that version, the last one that brings its models, needs numpy < 2. Each
picture gets an array [478, 3] of pixels at the size of the manifest, NaN where there is no face,
under the SHA-256 of its file: landmarks of a picture that has changed since cannot be taken for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import mediapipe
import numpy as np
from PIL import Image

NUM_LANDMARKS = 478
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_pixels(path: Path, background: list[float]) -> np.ndarray:
    """RGB on the background of the manifest, as metrics see it."""
    with Image.open(path) as picture:
        if "A" in picture.getbands() or "transparency" in picture.info:
            color = (*(round(255 * value) for value in background), 255)
            paper = Image.new("RGBA", picture.size, color)
            picture = Image.alpha_composite(paper, picture.convert("RGBA"))
        return np.asarray(picture.convert("RGB"))


def find_landmarks(mesh: object, pixels: np.ndarray, size: int) -> np.ndarray:
    faces = mesh.process(pixels).multi_face_landmarks
    if not faces:
        return np.full((NUM_LANDMARKS, 3), np.nan, np.float32)
    # z has the scale of x.
    return size * np.array([(p.x, p.y, p.z) for p in faces[0].landmark], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("renders", nargs="*", type=Path, help="folders of renders")
    parser.add_argument("-o", "--output", type=Path, default=Path("landmarks.npz"))
    arguments = parser.parse_args()
    manifest = json.loads((arguments.benchmark / "manifest.json").read_text())
    # Every picture by itself: following a face through pictures would depend on their order.
    options = {"static_image_mode": True, "refine_landmarks": True, "max_num_faces": 1}
    found, unreadable = {}, 0
    with mediapipe.solutions.face_mesh.FaceMesh(**options) as mesh:
        for folder in (arguments.benchmark / "targets", *arguments.renders):
            for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
                try:
                    pixels = read_pixels(path, manifest["background"])
                except (OSError, SyntaxError):  # the evaluation says so too, and leaves it out
                    unreadable += 1
                    continue
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[digest] = find_landmarks(mesh, pixels, manifest["image_size"])
    np.savez_compressed(arguments.output, **found)
    missed = sum(bool(np.isnan(points).any()) for points in found.values())
    print(
        f"{len(found)} pictures, {missed} without a face, {unreadable} unreadable: "
        f"{arguments.output}"
    )


if __name__ == "__main__":
    main()

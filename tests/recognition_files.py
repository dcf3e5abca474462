"""Weights of the face recognition network on disk, made up."""

import json

import numpy as np
import torch

from pointillist_hf.evaluation import face_recognition


def write_weights(folder, *, seed=0, whole_floats=()):
    """Writes both files. Returns the arrays by name, filters with the channels last.

    whole_floats: Names of arrays that are stored as 32-bit numbers.
    """
    rng, entries, contents, arrays = np.random.default_rng(seed), [], b"", {}
    for name, shape in stored_shapes().items():
        entry = {"name": name, "shape": shape, "dtype": "float32"}
        if name in whole_floats:
            stored = rng.normal(0, 0.1, shape).astype(np.float32)
            arrays[name] = stored
        else:
            stored = rng.integers(0, 256, shape, dtype=np.uint8)
            scale, low = 0.2 / 255, -0.1
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": low}
            arrays[name] = stored * np.float32(scale) + np.float32(low)
        entries.append(entry)
        contents += stored.tobytes()
    folder.mkdir(exist_ok=True)
    manifest = [{"weights": entries[:5]}, {"weights": entries[5:]}]
    (folder / face_recognition.MANIFEST_FILE).write_text(json.dumps(manifest))
    (folder / face_recognition.WEIGHTS_FILE).write_bytes(contents)
    return arrays


def stored_shapes():
    """The shape of each array as the package stores it."""
    shapes = {}
    for name, values in face_recognition.FaceRecognitionNetwork().state_dict().items():
        *path, kind = name.removeprefix("blocks.").split(".")
        theirs = {"factors": "scale/weights", "summands": "scale/biases", "weight": "filters"}
        shape = list(values.shape)
        if kind == "weight":
            shape = [shape[i] for i in (2, 3, 1, 0)]
        if kind in ("factors", "summands"):
            shape = shape[:1]
        shapes["/".join([*path, theirs.get(kind, kind)])] = shape
    return shapes


def random_network(folder):
    """A network of made-up weights, by the way over the files."""
    write_weights(folder)
    torch.manual_seed(0)
    return face_recognition.FaceRecognitionNetwork.read(folder, checksum=None)

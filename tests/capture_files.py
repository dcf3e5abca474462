# SPDX-License-Identifier: Apache-2.0
"""A tiny capture of a synthetic person, to be written, read, damaged and fitted."""

import json
from functools import lru_cache

import numpy as np

from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, capture_person

CONFIG = SyntheticCaptureConfig(
    resolution="low", image_size=32, num_timesteps=3, num_cameras=4, hair_density=0.05
)


@lru_cache
def tiny_capture():
    return capture_person(5, CONFIG)


def edit_json(folder, change):
    """Applies a change to the transforms of all splits."""
    for path in folder.glob("transforms*.json"):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def edit_frames(folder, **values):
    edit_json(folder, lambda content: [frame.update(values) for frame in content["frames"]])


def edit_params(folder, **values):
    for path in folder.glob("flame_param/*.npz"):
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{k: v for k, v in (arrays | values).items() if v is not None})

# SPDX-License-Identifier: Apache-2.0
"""A tiny capture of a synthetic person, to be written, read, damaged and fitted."""

from functools import lru_cache

from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, capture_person

CONFIG = SyntheticCaptureConfig(
    resolution="low", image_size=32, num_timesteps=3, num_cameras=4, hair_density=0.05
)


@lru_cache
def tiny_capture():
    return capture_person(5, CONFIG)

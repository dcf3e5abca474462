# SPDX-License-Identifier: Apache-2.0
"""Squares cut out of pictures, and the way back."""

import numpy as np
import pytest

from pointillist_hf.portraits.rotated_square import RotatedSquare

CENTER = np.array([52.0, 41.0])


def ramp(height, width):
    """A picture whose values are the places of its pixels: x in red, y in green."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([x, y, 0 * x], axis=-1)


def test_places_go_there_and_back():
    square = RotatedSquare(CENTER, 30.0, 0.7, 64)
    places = np.random.default_rng(0).uniform(0, 64, (50, 2))
    np.testing.assert_allclose(square.from_picture(square.to_picture(places)), places)
    np.testing.assert_allclose(square.to_picture(np.array([32.0, 32.0])), CENTER)


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 3.0, -2.0])
@pytest.mark.parametrize("side", [16.0, 40.0, 45.0])
def test_samples_show_the_places_they_claim(angle, side):
    square = RotatedSquare(CENTER, side, angle, 20)
    # Twice the place of a pixel is a whole number that fits into a byte.
    picture = (2 * ramp(84, 100)).astype(np.uint8)
    places = square.to_picture(ramp(20, 20)[..., :2])
    error = square.sample(picture)[..., :2] / 2 - places
    assert np.abs(error).max() < 0.5
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.1


def test_a_whole_picture_stays_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    whole = RotatedSquare(np.array([16.0, 16.0]), 32.0, 0.0, 32)
    assert np.array_equal(whole.sample(picture), picture)
    turned = RotatedSquare(np.array([16.0, 16.0]), 32.0, np.pi / 2, 32)
    assert np.array_equal(turned.sample(picture), np.rot90(picture))


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_fine_patterns_become_grey(angle):
    y, x = np.mgrid[0:400, 0:400]
    checkerboard = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    reduced = RotatedSquare(np.array([200.0, 200.0]), 240.0, angle, 16).sample(checkerboard)
    assert np.abs(reduced.astype(float) - 127.5).max() < 12


def test_beyond_the_border():
    picture = np.full((10, 10, 3), 200, np.uint8)
    outside = RotatedSquare(np.array([-40.0, 5.0]), 20.0, 0.3, 8)
    assert (outside.sample(picture) == 200).all()
    assert (outside.sample(picture, beyond=7) == 7).all()


def test_what_is_pasted_lies_where_it_was_cut():
    square = RotatedSquare(np.array([50.0, 40.0]), 40.0, 0.5, 80)
    pasted = square.paste(np.ones((80, 80), np.float32), 80, 100)
    inside = square.from_picture(ramp(80, 100)[..., :2])
    depth = np.minimum(inside, 80 - inside).min(axis=-1)
    assert (pasted[depth > 2] == 1).all()
    assert (pasted[depth < -2] == 0).all()

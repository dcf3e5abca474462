# SPDX-License-Identifier: Apache-2.0
"""What has the background's colour is cut off the matte, and nothing else."""

import cv2
import numpy as np
import pytest

from pointillist_hf.portraits.matte_edges import BAND, SIDE, cut_background

BLUE, BROWN, GREY = (60, 110, 200), (90, 60, 40), (128, 128, 128)
GAP = (slice(250, 270), slice(130, 150))  # between hair and shoulder


def scene(background=BLUE, seed=0, noise=3.0):
    """A person with a gap that the matte has closed. [S, S, 3], [S, S]"""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = background
    person = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(person, (192, 170), (70, 95), 0, 0, 360, 1, -1)
    person[240:, 130:260] = 1
    matte = cv2.GaussianBlur(person.astype(np.float32), (0, 0), 1.0)
    shown = person.astype(bool)
    shown[GAP] = False
    picture[shown] = BROWN
    picture += np.random.default_rng(seed).normal(0, noise, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), matte


def test_a_gap_between_hair_and_shoulder_is_opened():
    picture, matte = scene()
    cut = cut_background(matte, picture)
    inner = (slice(252, 268), slice(132, 142))
    assert matte[inner].min() > 0.9
    assert cut[inner].max() < 0.2
    assert (cut <= matte + 1e-6).all()
    person = (matte > 0.5) & (picture[..., 2] < 90)
    assert (cut[person] > 0.5).mean() > 0.98


def test_a_strip_wider_than_the_band_goes_round_by_round():
    picture, matte = scene()
    strip = (slice(330, SIDE), slice(130, 158))  # below a sleeve that ends in the picture
    picture[strip] = BLUE
    cut = cut_background(matte, picture)
    assert 2 * BAND < 158 - 130
    assert cut[340:370, 134:150].max() < 0.2


def test_where_both_sides_are_alike_nothing_is_cut():
    picture, matte = scene(background=BROWN)
    assert np.array_equal(cut_background(matte, picture), matte)


def test_a_busy_background_tells_nothing():
    picture, matte = scene()
    noise = np.random.default_rng(1).uniform(0, 255, picture.shape)
    behind = matte < 0.5
    picture[behind] = noise[behind]
    assert np.array_equal(cut_background(matte, picture), matte)


def test_a_grainy_background_tells_nothing_however_much_lighter_it_is():
    picture, matte = scene(background=(225, 225, 225), noise=18.0)
    assert np.array_equal(cut_background(matte, picture), matte)
    plain, _ = scene(background=(225, 225, 225))
    assert cut_background(matte, plain)[252:268, 132:142].max() < 0.2


def test_an_island_of_the_background_color_stays():
    """A blue eye before a blue wall."""
    picture, matte = scene()
    picture[170:176, 192:198] = BLUE
    edge = (slice(150, 156), slice(125, 131))  # near the outline, but not at it
    picture[edge] = BLUE
    cut = cut_background(matte, picture)
    assert cut[170:176, 192:198].min() > 0.9
    assert cut[edge].min() > 0.9


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_matte_without_a_border_stays(value):
    matte = np.full((SIDE, SIDE), value, np.float32)
    assert np.array_equal(cut_background(matte, scene()[0]), matte)

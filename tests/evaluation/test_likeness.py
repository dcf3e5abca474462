# SPDX-License-Identifier: Apache-2.0
"""The distance of two faces: weights from files, faces turned upright, known distances."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from recognition_files import random_network, write_weights

from pointillist_hf.evaluation.face_recognition import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    FaceRecognitionNetwork,
    ResidualBlock,
    state_name,
)
from pointillist_hf.evaluation.likeness import Likeness, cut_chip
from pointillist_hf.portraits.portrait_tracker import PortraitTracker

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "model_cards/pointillist-tiny"


@pytest.fixture(scope="module")
def astronaut():
    photograph = Image.open(ROOT / "examples/images/astronaut.jpg").convert("RGB")
    return photograph.crop((60, 0, 380, 320))


@pytest.fixture(scope="module")
def tracker():
    return PortraitTracker.from_pretrained(CHECKPOINT, subfolder="portrait_tracker")


@pytest.fixture(scope="module")
def likeness(tracker, tmp_path_factory):
    return Likeness(random_network(tmp_path_factory.mktemp("weights")), tracker)


def test_arrays_of_the_files_reach_the_network(tmp_path):
    arrays = write_weights(tmp_path, whole_floats=("fc", "conv64_down/conv1/conv/filters"))
    state = FaceRecognitionNetwork.read(tmp_path / WEIGHTS_FILE, checksum=None).state_dict()
    for name, array in arrays.items():
        values = state[state_name(name)]
        expected = torch.from_numpy(array)
        if array.ndim == 4:
            expected = expected.permute(3, 2, 0, 1)
        assert torch.allclose(values.squeeze(), expected.squeeze(), atol=1e-7), name


def test_a_missing_damaged_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"face_recognition_model\.bin.*npm pack"):
        FaceRecognitionNetwork.read(tmp_path)
    write_weights(tmp_path)
    with pytest.raises(ValueError, match="must have sha256"):
        FaceRecognitionNetwork.read(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="must describe the 117 arrays"):
        FaceRecognitionNetwork.read(tmp_path, checksum=None)
    (tmp_path / MANIFEST_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="weights_manifest"):
        FaceRecognitionNetwork.read(tmp_path, checksum=None)


def test_blocks_let_their_input_pass():
    x = torch.rand(1, 4, 9, 9)
    still = ResidualBlock(4, 4, halves=False)
    torch.nn.init.zeros_(still.conv2.factors)
    assert torch.equal(still(x), x)
    halved = ResidualBlock(4, 6, halves=True)
    torch.nn.init.zeros_(halved.conv2.factors)
    passed = halved(x)
    assert passed.shape == (1, 6, 4, 4) and not passed[:, 4:].any()
    assert torch.allclose(passed[:, :4], torch.nn.functional.avg_pool2d(x, 2))


def test_only_inner_convolutions_see_beyond_the_border(likeness):
    chip = torch.rand(1, 150, 150, 3)
    x = likeness.network.conv32_down(chip.permute(0, 3, 1, 2))
    assert x.shape[-2:] == (72, 72)
    sizes = []
    for block in likeness.network.blocks.values():
        block.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    likeness.network(chip)
    assert sizes == [35] * 3 + [17] * 4 + [8] * 3 + [4] * 3 + [2]


def test_equal_pictures_have_no_distance(likeness, astronaut):
    portrait = likeness.tracker(astronaut)[0]
    place = likeness.embed(portrait)
    assert place.shape == (128,) and place.isfinite().all() and place.std() > 0
    assert likeness.distance(portrait, astronaut) == 0
    darker = Image.fromarray(np.asarray(astronaut) // 2)
    assert likeness.distance(portrait, darker) == pytest.approx(
        float(torch.dist(place, likeness.embed(darker)))
    )
    assert likeness.distance(darker, portrait) > 0


@pytest.mark.parametrize("quarters", [1, 2])
def test_chips_are_upright(tracker, astronaut, quarters):
    chip = cut_chip(tracker(astronaut)[0])
    turned = cut_chip(tracker(astronaut.rotate(90 * quarters))[0])
    assert chip.shape == (150, 150, 3)
    assert (chip - turned).abs().mean() < 0.02
    assert (chip - turned.rot90()).abs().mean() > 0.1


def test_chips_of_small_and_large_pictures_agree(tracker, astronaut):
    large = astronaut.resize((1280, 1280), Image.Resampling.LANCZOS)
    small = astronaut.resize((256, 256), Image.Resampling.LANCZOS)
    chips = [cut_chip(tracker(one)[0]) for one in (astronaut, large, small)]
    assert all((chip - chips[0]).abs().mean() < 0.02 for chip in chips)


def test_eyes_and_mouth_have_their_place_in_the_chip(tracker, astronaut):
    portrait = tracker(astronaut)[0]
    chip = Image.fromarray((255 * cut_chip(portrait).numpy()).astype(np.uint8))
    marks = tracker(ImageOps.expand(chip, 60))[0].landmarks[:, :2] - 60
    eyes = marks[[362, 263, 386, 374, 33, 133, 159, 145]].mean(0)
    mouth = marks[[61, 291, 0, 17]].mean(0)
    assert torch.allclose((2 * eyes + mouth) / 3, torch.tensor([75.0, 64.5]), atol=3)
    assert mouth[1] - eyes[1] == pytest.approx(0.45 * 150, abs=3)


def test_no_face_is_an_error(likeness):
    with pytest.raises(ValueError, match="must show a face"):
        likeness.embed(Image.new("RGB", (96, 96), "white"))


@pytest.mark.slow
@pytest.mark.skipif(
    "FACE_RECOGNITION_WEIGHTS" not in os.environ,
    reason="FACE_RECOGNITION_WEIGHTS names no folder with the weights of the network",
)
def test_known_distances(astronaut):
    likeness = Likeness.read(os.environ["FACE_RECOGNITION_WEIGHTS"], CHECKPOINT)
    assert likeness.distance(astronaut, ImageOps.mirror(astronaut)) < 0.2
    assert likeness.distance(astronaut, astronaut.rotate(30)) < 0.2
    assert likeness.distance(astronaut, astronaut.resize((213, 213))) < 0.25

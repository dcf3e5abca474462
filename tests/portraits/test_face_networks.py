# SPDX-License-Identifier: Apache-2.0
"""The networks' files: whole or refused, and run as Google's own runtime runs them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pointillist_hf.portraits.face_networks import (
    DETECTION_FILE,
    IRIS_FILE,
    LANDMARK_FILE,
    LEGAL_FILES,
    PERSON_FILE,
    FaceNetworks,
)
from pointillist_hf.portraits.own_person import PERSON
from pointillist_hf.portraits.portrait_tracker import PortraitTracker


@pytest.fixture
def copied(tracker_folder, tmp_path):
    """A copy of the tracker's folder that may be spoilt."""
    return shutil.copytree(tracker_folder, tmp_path / "tracker")


@pytest.fixture(scope="module")
def pixels(astronaut):
    return np.asarray(Image.open(astronaut).convert("RGB")).astype(np.float32)


# The figures below are those of ai-edge-litert 2.3 for the same pixels.


def test_landmarks_are_those_of_litert(tracker, pixels):
    outputs = tracker.networks.landmark(pixels[30:222, 130:322] / 255)
    expected = [
        [92.601, 100.275, -23.396],
        [63.204, 70.304, 6.156],
        [128.540, 73.563, 3.237],
        [71.107, 110.745, 7.519],
        [90.535, 150.369, 8.100],
    ]
    found = outputs["conv2d_21"].reshape(468, 3)[[1, 33, 263, 61, 152]]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert outputs["conv2d_31"].item() == pytest.approx(23.934, abs=0.01)


def test_irises_are_those_of_litert(tracker, pixels):
    outputs = tracker.networks.iris(pixels[71:135, 214:278] / 255)
    expected = [[33.100, 32.167], [36.603, 31.412], [32.089, 28.187], [29.558, 32.898],
                [34.089, 36.123]]  # fmt: skip
    found = outputs["output_iris"].reshape(5, 3)[:, :2]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_detections_are_those_of_litert(tracker, pixels):
    outputs = tracker.networks.detection(pixels[50:178, 160:288] / 127.5 - 1)
    logits = outputs["classificators"].reshape(-1)
    assert logits.argmax() == 726
    assert logits[726] == pytest.approx(2.40056, abs=0.005)
    expected = [7.657, 3.120, 102.241, 102.239, -12.604, -20.304, 31.523, -17.154]
    np.testing.assert_allclose(outputs["regressors"].reshape(-1, 16)[726, :8], expected, atol=0.02)


def test_mattes_are_those_of_litert(tracker, pixels):
    matte = tracker.networks.matte(pixels[0:256, 96:352] / 255)["activation_10"]
    assert matte.mean() == pytest.approx(0.515576, abs=1e-4)


def test_persons_are_those_of_litert(tracker, pixels):
    person = tracker.networks.person(pixels[20:276, 96:352] / 255)[PERSON][0, 0]
    found = person[[128, 40, 200, 100], [128, 20, 128, 60]]
    np.testing.assert_allclose(found, [135.939, -17.689, 136.274, -138.839], atol=0.02)
    assert (person > 0).mean() == pytest.approx(0.426453, abs=1e-4)


def test_networks_share_no_memory_with_their_answers(tracker, pixels):
    first = tracker.networks.landmark(pixels[30:222, 130:322] / 255)["conv2d_21"]
    kept = first.copy()
    tracker.networks.landmark(np.zeros((192, 192, 3), np.float32))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("name", [LANDMARK_FILE, PERSON_FILE, *LEGAL_FILES])
def test_missing_files_are_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"`{name}` \(sha256 \w{{64}}\) .* none at .*tracker"
    ):
        PortraitTracker.from_pretrained(copied)


def test_damaged_files_are_refused(copied):
    contents = bytearray((copied / IRIS_FILE).read_bytes())
    contents[len(contents) // 2] ^= 1
    (copied / IRIS_FILE).write_bytes(contents)
    with pytest.raises(ValueError, match=f"`{IRIS_FILE}` must have sha256 d1744d2a.* is damaged"):
        PortraitTracker.from_pretrained(copied)


def test_cut_off_files_are_refused(copied):
    contents = (copied / LANDMARK_FILE).read_bytes()
    (copied / LANDMARK_FILE).write_bytes(contents[:1000])
    with pytest.raises(ValueError, match=r"1,000 bytes"):
        PortraitTracker.from_pretrained(copied)


def test_swapped_files_are_refused(copied):
    detection, landmark = copied / DETECTION_FILE, copied / LANDMARK_FILE
    contents = detection.read_bytes()
    detection.write_bytes(landmark.read_bytes())
    landmark.write_bytes(contents)
    with pytest.raises(ValueError, match=f"`{DETECTION_FILE}` must have sha256 bbff11ce"):
        PortraitTracker.from_pretrained(copied)


def test_files_without_a_checksum_are_refused(tracker_folder):
    with pytest.raises(ValueError, match=f"must name {DETECTION_FILE}"):
        FaceNetworks.read(tracker_folder, {})

# SPDX-License-Identifier: Apache-2.0
"""Of people who touch each other, the matte shows the one whose face it is."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pointillist_hf.data.population.photography import take_snapshots
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.portraits.face_landmarks import settle_landmarks
from pointillist_hf.portraits.face_networks import PERSON_FILE
from pointillist_hf.portraits.face_search import search_faces
from pointillist_hf.portraits.own_person import _fill_holes
from pointillist_hf.portraits.person_matte import find_matte, trust_person
from pointillist_hf.portraits.portrait_tracker import PortraitTracker
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

CURLS = 2_000_058  # seed of somebody with a large head of curls, turned away
STEP = 150  # pixels between two people, one in front of the other's shoulder
COLUMNS = slice(60, 400)  # of the photograph


@pytest.fixture(scope="module")
def couple(astronaut, tracker):
    """A person, and the same one mirrored in front of her shoulder."""
    matte = tracker(astronaut)[0].matte.numpy()[:260, COLUMNS, None]
    photograph = np.asarray(Image.open(astronaut).convert("RGB"))[:260, COLUMNS].astype(np.float32)
    picture = np.concatenate([photograph, np.repeat(photograph[:, -1:], STEP, axis=1)], axis=1)
    front, behind = matte[:, ::-1], picture[:, STEP:]
    picture[:, STEP:] = photograph[:, ::-1] * front + behind * (1 - front)
    return Image.fromarray(picture.round().astype(np.uint8))


@pytest.fixture
def without(tracker_folder, tmp_path):
    """The tracker as it was saved before there was a network of persons."""
    folder = shutil.copytree(tracker_folder, tmp_path / "tracker")
    (folder / PERSON_FILE).unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["checksums"][PERSON_FILE]
    (folder / "config.json").write_text(json.dumps(config))
    return PortraitTracker.from_pretrained(folder)


def test_others_are_left_out(tracker, without, couple):
    width = couple.width
    for face in (1, 2):
        alone, together = (t(couple, face=face)[0] for t in (tracker, without))
        own = float(alone.landmarks[:, 0].mean())
        other = width - own  # they are mirror images
        near = np.abs(np.arange(width) - other) < 45
        now, before = (p.matte.numpy() > 0.5 for p in (alone, together))
        assert before[:, near].sum() > 2000
        assert now[:, near].sum() < 0.2 * before[:, near].sum()
        head = np.abs(np.arange(width) - own) < 45
        assert now[:, head].sum() > 0.97 * before[:, head].sum()


def test_who_is_alone_stays_whole(tracker, without, astronaut):
    now, before = (t(astronaut)[0].matte > 0.5 for t in (tracker, without))
    assert not (now & ~before).any()
    assert (before & ~now).sum() < 0.02 * before.sum()


def test_a_tracker_without_the_network_is_saved_and_read(without, tmp_path):
    assert without.networks.person is None
    without.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / PERSON_FILE).exists()
    assert PortraitTracker.from_pretrained(tmp_path / "again").networks.person is None


def test_small_holes_are_filled_at_the_border_too():
    person = np.zeros((100, 100), np.uint8)
    person[20:, 10:90] = 1
    inside = np.ones_like(person, bool)
    inside[80:] = False  # there the picture ends
    small, at_end, large = np.s_[40:46, 20:26], np.s_[76:80, 60:70], np.s_[30:60, 40:70]
    for hole in (small, at_end, large):
        person[hole] = 0
    filled = _fill_holes(person, inside)
    assert filled[small].all()
    assert filled[at_end].all()
    assert not filled[large].any()
    assert not filled[:20].any()


def test_who_misses_the_chest_says_nothing_of_it():
    """A black jacket before a dark wall; likewise big curls above the face."""
    own = np.zeros((200, 200), np.float32)
    own[40:120] = 1
    nowhere = np.zeros_like(own, bool)
    face, chest, hair = nowhere.copy(), nowhere.copy(), nowhere.copy()
    face[60:110, 80:120] = True
    chest[130:180, 80:120] = True
    hair[10:60, 80:120] = True
    trusted = trust_person(own, face, nowhere, chest, chin=112)
    assert trusted[112:].all()
    assert np.array_equal(trusted[:112], own[:112])
    trusted = trust_person(own, face, hair, nowhere, chin=112)
    assert trusted[:112].all()
    assert np.array_equal(trusted[112:], own[112:])
    own[:, 70:130] = 1
    assert np.array_equal(trust_person(own, face, hair, chest, chin=112), own)
    own[80:, 80:120] = 0
    assert trust_person(own, face, nowhere, nowhere, chin=112).all(), "nor of the face"
    assert np.array_equal(trust_person(own, nowhere, nowhere, nowhere, chin=112), own)


def test_big_curls_stay(tracker, without):
    """The network of persons misses them; who is alone keeps them."""
    subject = build_subject(CURLS, resolution="low")
    cut_out = take_snapshots(subject, ProceduralHeadRig("low"), 1, size=384).images[0]
    picture = cut_out[..., :3] * cut_out[..., 3:] + 0.8 * (1 - cut_out[..., 3:])
    picture = (255 * picture).round().clip(0, 255).astype(np.uint8)
    now, before = (t(Image.fromarray(picture))[0].matte > 0.5 for t in (tracker, without))
    assert (now & before).sum() > 0.97 * before.sum()
    # With another face somewhere, they might be those of its owner.
    landmarks = search_faces(
        tracker.networks, picture, num_wanted=1, thresholds=tracker.thresholds
    )[0]
    settled = settle_landmarks(tracker.networks, picture, landmarks)
    crowded = find_matte(tracker.networks, picture, settled) > 0.5
    assert crowded.sum() < 0.9 * int(before.sum())

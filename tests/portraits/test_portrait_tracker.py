# SPDX-License-Identifier: Apache-2.0
"""One face in a photograph: where it is, however the photograph was taken."""

import logging
import math
from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from pointillist_hf.data.population.photography import portrait_cameras, pose_subject
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.portraits import matte_edges
from pointillist_hf.portraits.portrait_tracker import PortraitTracker
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def photograph(astronaut):
    with Image.open(astronaut) as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def portrait(tracker, photograph):
    return tracker(photograph)[0]


@pytest.fixture(scope="module")
def head(photograph):
    """Head and shoulders alone. 280 x 280 pixels"""
    return photograph.crop((85, 0, 365, 280))


def placed(picture, size, corner):
    """The picture on a grey canvas."""
    canvas = Image.new("RGB", size, GREY)
    canvas.paste(picture, corner)
    return canvas


def distance(one, other, eye_distance):
    """Mean distance of landmarks in distances of the eyes."""
    return (one - other).norm(dim=-1).mean().item() / eye_distance


def test_the_astronaut(portrait):
    assert portrait.pixels.shape == (512, 512, 3)
    assert portrait.pixels.dtype == torch.uint8
    assert portrait.eye_distance == pytest.approx(62.6, abs=1)
    assert portrait.score > 0.9
    assert abs(portrait.roll) < 0.08
    assert portrait.warnings == ()
    # Read off the photograph by eye: pupils, tip of the nose, corners of the mouth.
    expected = torch.tensor([[246.5, 103.0], [203.0, 101.0], [223.0, 130.0], [202.0, 141.0],
                             [244.0, 141.0]])  # fmt: skip
    found = torch.cat([portrait.pupils, portrait.landmarks[[4, 61, 291], :2]])
    assert (found - expected).norm(dim=-1).max() < 4


def test_left_is_the_subjects(portrait):
    left, right = portrait.pupils
    assert left[0] > right[0]
    for pupil, corners in ((left, [362, 263]), (right, [133, 33])):
        inner, outer = portrait.landmarks[corners, 0].tolist()
        assert min(inner, outer) < pupil[0] < max(inner, outer)


def test_a_mirrored_photograph_has_mirrored_eyes(tracker, photograph, portrait):
    mirrored = tracker(photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[0]
    expected = portrait.pupils.flip(0) * torch.tensor([-1.0, 1.0]) + torch.tensor([512.0, 0.0])
    assert (mirrored.pupils - expected).norm(dim=-1).max() < 0.01 * portrait.eye_distance


def test_the_box_holds_the_landmarks_and_the_frame_the_head(portrait):
    places = portrait.landmarks[:, :2]
    assert torch.equal(portrait.box, torch.cat([places.amin(0), places.amax(0)]))
    assert (portrait.frame[:2] < portrait.box[:2]).all()
    assert (portrait.frame[2:] > portrait.box[2:]).all()
    width, height = portrait.frame[2:] - portrait.frame[:2]
    assert width.item() == pytest.approx(4.6 * portrait.eye_distance, rel=0.02)
    assert width.item() == pytest.approx(height.item())


def test_the_matte_is_the_person(portrait):
    rows, columns = portrait.landmarks[:, [1, 0]].long().unbind(1)
    assert (portrait.matte[rows, columns] > 0.9).float().mean() > 0.97
    assert portrait.matte.min() >= 0
    assert portrait.matte.max() <= 1
    assert portrait.matte[80, 170] > 0.9  # hair beside the face
    assert portrait.matte[20, 120] < 0.1  # wall
    assert portrait.matte[:, :40].max() == 0  # far from the head


def test_the_matte_gives_up_a_plain_background(tracker, photograph, portrait, monkeypatch):
    blue, share = torch.tensor([60.0, 110.0, 200.0]), portrait.matte[..., None]
    pixels = torch.from_numpy(np.array(photograph)).float() * share + blue * (1 - share)
    picture = Image.fromarray(pixels.round().byte().numpy())
    matte = tracker(picture)[0].matte
    monkeypatch.setattr(matte_edges, "ROUNDS", 0)
    before = tracker(picture)[0].matte
    assert (matte <= before + 1e-3).all()
    gone = (before > 0.5) & (matte < 0.5)
    assert gone.sum() > 20
    assert (pixels[gone] - blue).abs().max(-1).values.median() < 30


def test_the_same_photograph_gives_the_same_bits(tracker, photograph, portrait):
    again = tracker(photograph)[0]
    for field in fields(portrait):
        one, other = getattr(portrait, field.name), getattr(again, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_saved_and_loaded_it_sees_the_same(tracker, photograph, portrait, tmp_path):
    tracker.save_pretrained(tmp_path / "portrait_tracker")
    loaded = PortraitTracker.from_pretrained(tmp_path, subfolder="portrait_tracker")
    assert torch.equal(loaded(photograph)[0].landmarks, portrait.landmarks)
    assert loaded.thresholds == tracker.thresholds
    assert loaded.networks.files == tracker.networks.files


def test_settings_are_saved_and_overridden(tracker_folder, tmp_path):
    picky = PortraitTracker.from_pretrained(tracker_folder, min_score=0.99)
    picky.save_pretrained(tmp_path)
    assert PortraitTracker.from_pretrained(tmp_path).thresholds.min_score == 0.99


def test_a_published_folder_is_what_the_tracker_writes(tracker, tracker_folder, tmp_path):
    tracker.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in tracker_folder.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (tracker_folder / path.name).read_bytes()


def test_kinds_of_pictures_agree(tracker, photograph, portrait, tmp_path):
    photograph.save(tmp_path / "photograph.png")
    array = np.asarray(photograph)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for kind in (tmp_path / "photograph.png", array, tensor, tensor.float() / 255):
        assert torch.equal(tracker(kind)[0].landmarks, portrait.landmarks)


def test_lists_give_one_portrait_each(tracker, photograph, head, portrait):
    found = tracker([head, photograph])
    assert [p.width for p in found] == [280, 512]
    assert torch.equal(found[1].landmarks, portrait.landmarks)


@pytest.mark.parametrize("degrees", range(30, 360, 30))
def test_any_roll_gives_the_same_landmarks(tracker, photograph, portrait, degrees):
    size = 728  # holds the photograph at any roll
    turn = cv2.getRotationMatrix2D((255.5, 255.5), -degrees, 1)
    turn[:, 2] += (size - 512) / 2
    turned = cv2.warpAffine(np.asarray(photograph), turn, (size, size), borderValue=GREY)
    found = tracker(turned)[0]
    angle = math.radians(degrees)
    back = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    places = (found.landmarks[:, :2] - size / 2) @ back + 256
    assert distance(places, portrait.landmarks[:, :2], portrait.eye_distance) < 0.006
    assert distance(found.landmarks[:, 2:], portrait.landmarks[:, 2:], portrait.eye_distance) < 0.01
    roll = (found.roll - portrait.roll - angle + math.pi) % (2 * math.pi) - math.pi
    assert abs(roll) < 0.01
    pupils = (found.pupils - size / 2) @ back + 256
    assert (pupils - portrait.pupils).norm(dim=-1).max() < 0.02 * portrait.eye_distance
    assert found.warnings == ()
    # The canvas is empty beyond the photograph, and the wall in it is no part of the person.
    matte = cv2.warpAffine(found.matte.numpy(), turn, (512, 512), flags=cv2.WARP_INVERSE_MAP)
    assert np.abs(matte - portrait.matte.numpy())[:230].mean() < 0.012


@pytest.mark.parametrize("scale", [0.5, 2, 6])
def test_any_size_gives_the_same_landmarks(tracker, photograph, portrait, scale):
    side = round(512 * scale)
    found = tracker(photograph.resize((side, side), Image.Resampling.LANCZOS))[0]
    assert distance(found.landmarks / scale, portrait.landmarks, portrait.eye_distance) < 0.012
    assert found.matte.shape == (side, side)


def test_a_small_picture(tracker, head):
    portrait = tracker(head.resize((64, 64), Image.Resampling.LANCZOS))[0]
    assert portrait.eye_distance == pytest.approx(62.6 * 64 / 280, rel=0.08)
    assert "small: the eyes are 14 pixels apart" in portrait.warnings[0]


@pytest.mark.parametrize(
    ("side", "corner"), [(96, (900, 150)), pytest.param(60, (120, 640), marks=pytest.mark.slow)]
)
def test_small_faces_in_large_pictures(tracker, head, portrait, side, corner):
    """The face is 3 and 2 percent of the picture."""
    small = head.resize((side, side), Image.Resampling.LANCZOS)
    found = tracker(placed(small, (1200, 800), corner))[0]
    scale = side / 280
    expected = (portrait.landmarks[:, :2] - torch.tensor([85, 0])) * scale + torch.tensor(corner)
    assert distance(found.landmarks[:, :2], expected, scale * portrait.eye_distance) < 0.05


def test_small_faces_upside_down(tracker, head):
    small = head.rotate(180).resize((130, 130), Image.Resampling.LANCZOS)
    found = tracker(placed(small, (1200, 800), (700, 300)))[0]
    assert abs(abs(found.roll) - math.pi) < 0.1
    assert found.eye_distance == pytest.approx(62.6 * 130 / 280, rel=0.05)


def test_several_faces(tracker, head, caplog):
    large, small = head.resize((220, 220)), head.resize((150, 150))
    both = placed(large, (420, 240), (195, 15))
    both.paste(small, (10, 60))
    with caplog.at_level(logging.WARNING):
        first = tracker(both)[0]
    assert [record.message for record in caplog.records] == list(first.warnings)
    assert first.warnings[0].startswith("2 faces were found")
    assert first.box[0] > 195
    second = tracker(both, face=2)[0]
    assert second.box[2] < 160
    assert second.warnings == ()
    # The other person does not belong to the matte.
    assert first.matte[:, :160].max() < 0.5 < second.matte[:, :160].max()
    assert torch.equal(tracker(both, face=1)[0].landmarks, first.landmarks)
    with pytest.raises(ValueError, match=r"`face` must be at most 2, .* got 3"):
        tracker(both, face=3)


def test_neighbours_do_not_belong_to_the_matte(tracker, photograph):
    head = photograph.crop((135, 5, 312, 240))
    both = placed(head, (177 + 12 + 140, 235), (0, 0))
    both.paste(head.crop((0, 0, 140, 235)), (177 + 12, 0))
    matte = tracker(both, face=1)[0].matte
    own, others = (matte[:, :177], matte[:, 189:])
    own, others = (own, others) if own.sum() > others.sum() else (others, own)
    assert own.mean() > 0.3
    assert others[:160].mean() < 0.02


@pytest.mark.parametrize("face", [0, -1])
def test_faces_are_counted_from_one(tracker, photograph, face):
    with pytest.raises(ValueError, match="`face` must be 1 for the largest"):
        tracker(photograph, face=face)


def test_pictures_without_a_face_are_refused(tracker, photograph):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    rocket_and_flag = photograph.crop((280, 0, 512, 512))
    for picture in (noise, Image.new("RGB", (64, 500), GREY), rocket_and_flag):
        with pytest.raises(ValueError, match="`image` must show a face, and none was found"):
            tracker(picture)


def test_unusable_input_is_refused(tracker, tmp_path):
    with pytest.raises(ValueError, match="at least 64 pixels wide and high, got 63 x 200"):
        tracker(Image.new("RGB", (63, 200)))
    with pytest.raises(ValueError, match="at least one photograph, got an empty list"):
        tracker([])
    with pytest.raises(FileNotFoundError, match="there is none at"):
        tracker(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"tracker's config\.json, and there is none in"):
        PortraitTracker.from_pretrained(tmp_path)


def test_cut_outs_bring_their_matte(tracker, photograph, portrait):
    alpha = Image.fromarray((255 * portrait.matte.numpy()).round().astype(np.uint8))
    cut_out = photograph.copy()
    cut_out.putalpha(alpha)
    found = tracker(cut_out)[0]
    assert torch.equal(found.matte, torch.from_numpy(np.asarray(alpha).astype(np.float32) / 255))
    assert distance(found.landmarks, portrait.landmarks, portrait.eye_distance) < 0.02


def test_opaque_alpha_is_no_cut_out(tracker, photograph, portrait):
    for value in (255, 90):
        opaque = photograph.copy()
        opaque.putalpha(value)
        found = tracker(opaque)[0]
        assert torch.equal(found.matte, portrait.matte)
        assert torch.equal(found.pixels, portrait.pixels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda head: head.filter(ImageFilter.GaussianBlur(2.5)), "blurred"),
        (lambda head: head.crop((0, 95, 280, 280)), "cut off by the border"),
        (lambda head: head.crop((100, 0, 280, 280)), "cut off by the border"),
        (lambda head: head.resize((90, 90)), "small"),
        (lambda head: ImageEnhance.Brightness(head).enhance(0.2), "face is dark"),
        (lambda head: ImageEnhance.Brightness(head).enhance(2.2), "overexposed"),
    ],
)
def test_warnings_say_what_is_wrong(tracker, head, caplog, spoil, message):
    with caplog.at_level(logging.WARNING):
        portrait = tracker(spoil(head))[0]
    assert [warning for warning in portrait.warnings if message in warning]
    assert [record.message for record in caplog.records] == list(portrait.warnings)


@pytest.mark.parametrize("color", [(120, 170, 200), (25, 25, 28)])
def test_a_mask_gets_a_warning(tracker, photograph, portrait, color):
    covered, places = photograph.copy(), portrait.landmarks[:, :2].tolist()
    outline = (197, 347, 454, 361, 397, 152, 172, 132, 234, 118)  # from the nose to the chin
    ImageDraw.Draw(covered).polygon([tuple(places[i]) for i in outline], fill=color)
    assert any("cover the face" in warning for warning in tracker(covered)[0].warnings)


def test_sunglasses_get_a_warning(tracker, photograph, portrait):
    covered, places = photograph.copy(), portrait.landmarks[:, :2].numpy()
    for corners in ((33, 133), (362, 263)):
        x, y = places[list(corners)].mean(0)
        ImageDraw.Draw(covered).ellipse([x - 15, y - 12, x + 15, y + 15], fill=(15, 15, 20))
    assert any("sunglasses" in warning for warning in tracker(covered)[0].warnings)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2_000_101, 2_000_102])
def test_people_whose_landmarks_are_known(tracker, seed):
    rig = ProceduralHeadRig("full")
    subject = build_subject(seed)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    rig_params = rig.neutral(betas=betas[None])
    posed = pose_subject(subject, rig, rig_params)[0]
    # Numbers of iBUG and of MediaPipe: tip of the nose, outer canthi, corners of the mouth.
    ibug, mediapipe = [30, 36, 45, 48, 54], [4, 33, 263, 61, 291]
    true_places = rig.landmarks(rig(rig_params))[0, ibug]
    for azimuth in (0.0, 30.0, 60.0):
        cameras = portrait_cameras([azimuth], [0.0], size=400)
        image = render_frame(posed, cameras, supersampling=1)
        portrait = tracker((255 * image).round().astype(np.uint8))[0]
        expected = project_points(true_places, cameras)[0][0]
        error = distance(portrait.landmarks[mediapipe, :2], expected, 90.0)
        assert error < 0.08
        assert any("turned away" in w for w in portrait.warnings) == (azimuth == 60)

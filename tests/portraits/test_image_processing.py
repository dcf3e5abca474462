# SPDX-License-Identifier: Apache-2.0
"""Photographs to framed portraits."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf import PortraitImageProcessor
from pointillist_hf.portraits.face_detection import crop_square, detect_faces, person_matte
from pointillist_hf.portraits.image_processing_portrait import load_image

PLAIN = {"detect_face": False, "remove_background": False}
ASTRONAUT = Path(__file__).parents[2] / "examples/images/astronaut.jpg"
needs_photograph = pytest.mark.skipif(not ASTRONAUT.is_file(), reason="the photograph is missing")


@pytest.fixture(scope="module")
def processor():
    return PortraitImageProcessor(size=56)


@pytest.fixture(scope="module")
def photograph():
    with Image.open(ASTRONAUT) as image:
        return image.convert("RGB")


@pytest.fixture
def noise():
    """A picture of 90 x 70 pixels without a face."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def restore(processor, pixel_values):
    """sRGB of the processed portrait. [H, W, 3]"""
    mean, std = (torch.tensor(v) for v in (processor.image_mean, processor.image_std))
    return pixel_values[0].permute(1, 2, 0) * std + mean


def test_shape_and_normalisation(processor):
    grey = Image.new("RGB", (80, 64), (51, 102, 204))
    pixel_values = processor(grey, **PLAIN)["pixel_values"]
    assert pixel_values.shape == (1, 3, 56, 56)
    expected = torch.tensor([0.2, 0.4, 0.8]).expand(56, 56, 3)
    torch.testing.assert_close(restore(processor, pixel_values), expected, atol=1e-6, rtol=0)


def test_all_kinds_of_input_agree(processor, noise, tmp_path):
    noise.save(tmp_path / "noise.png")
    array = np.asarray(noise)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = [
        tmp_path / "noise.png",
        str(tmp_path / "noise.png"),
        array,
        array.astype(np.float64) / 255,
        tensor,
        tensor.float() / 255,
    ]
    expected = processor(noise, **PLAIN)["pixel_values"]
    for kind in kinds:
        assert torch.equal(processor(kind, **PLAIN)["pixel_values"], expected)
    batch = processor(kinds, **PLAIN)["pixel_values"]
    assert torch.equal(batch, expected.expand(6, -1, -1, -1))


def test_half_precision_tensors_are_taken(processor, noise):
    tensor = torch.from_numpy(np.array(noise)).permute(2, 0, 1).to(torch.bfloat16) / 256
    assert load_image(tensor).size == (90, 70)


def test_without_detection_the_centred_square_is_the_frame(noise):
    framed = PortraitImageProcessor(size=70).frame(noise, **PLAIN)
    np.testing.assert_array_equal(np.asarray(framed), np.asarray(noise)[:, 10:80])


@pytest.mark.parametrize("kind", ["image", "array", "tensor"])
def test_alpha_is_used_as_it_is(processor, kind):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[:, :16, 3], pixels[:, 16:32, 3], pixels[:, 32:, 3] = 0, 128, 255
    image = {
        "image": Image.fromarray(pixels),
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
    }[kind]
    # `remove_background` stays on: the alpha channel takes its place.
    found = restore(processor, processor(image, detect_face=False)["pixel_values"])
    backdrop, red = torch.tensor(processor.background), torch.tensor([1.0, 0.0, 0.0])
    half = 128 / 255 * red + (1 - 128 / 255) * backdrop
    for column, expected in ((7, backdrop), (21, half), (45, red)):
        torch.testing.assert_close(found[:, column], expected.expand(56, 3), atol=0.005, rtol=0)


def test_palettes_with_transparency_are_alpha_too(processor, portrait):
    found = processor(portrait.quantize(64), **PLAIN)["pixel_values"]
    corner = restore(processor, found)[0, 0]
    torch.testing.assert_close(corner, torch.tensor(processor.background), atol=0.01, rtol=0)


def test_sideways_photographs_are_turned_upright(noise, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    noise.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(np.asarray(upright), np.rot90(np.asarray(noise), -1))


def test_grey_photographs_are_taken(processor, noise):
    pixel_values = processor(noise.convert("L"), **PLAIN)["pixel_values"]
    found = restore(processor, pixel_values)
    torch.testing.assert_close(found[..., 0], found[..., 2], atol=1e-6, rtol=0)


def test_the_background_becomes_plain(processor, portrait):
    """A person in front of a wall: the wall goes, the face stays."""
    wall = Image.new("RGBA", portrait.size, (30, 90, 160, 255))
    photograph = Image.alpha_composite(wall, portrait).convert("RGB")
    framed = np.asarray(processor.frame(photograph, detect_face=False))
    backdrop = np.round(255 * np.array(processor.background))
    for corner in (framed[0, 0], framed[0, -1], framed[10, 0], framed[10, -1]):
        np.testing.assert_allclose(corner, backdrop, atol=1)
    kept = np.asarray(processor.frame(photograph, **PLAIN))
    difference = framed[20:28, 24:32].astype(float) - kept[20:28, 24:32]
    assert np.abs(difference).mean() < 4  # resampled twice


def test_mattes_are_the_same_every_time(portrait):
    square = np.asarray(portrait.convert("RGB").resize((128, 128)))
    matte = person_matte(square)
    assert matte.shape == (128, 128)
    assert matte.min() >= 0
    assert matte.max() <= 1
    np.testing.assert_array_equal(person_matte(square), matte)


def test_squares_beyond_the_border_repeat_it():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    square = crop_square(pixels, -2, -3, 14, 14)
    np.testing.assert_array_equal(square[3:13, 2:12], pixels)
    np.testing.assert_array_equal(square[0, 2:12], pixels[0])
    np.testing.assert_array_equal(square[3:13, -1], pixels[:, -1])


def test_missing_files_are_refused(processor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`image` must be a file, .*nobody.jpg"):
        processor(tmp_path / "nobody.jpg")


@pytest.mark.parametrize("content", [b"", b"this is a text", b"\x89PNG\r\n\x1a\n broken"])
def test_files_that_are_no_pictures_are_refused(processor, tmp_path, content):
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"`image` must be a picture, and .*text.png cannot be read"
    ):
        processor(path)


def test_pictures_that_are_cut_off_are_refused(processor, noise, tmp_path):
    path = tmp_path / "cut.png"
    noise.save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(
        ValueError, match=r"`image` must be a picture, and .*cut.png cannot be read"
    ):
        processor(path)


@pytest.mark.parametrize("size", [(63, 100), (100, 63), (1, 1)])
def test_small_pictures_are_refused(processor, size):
    with pytest.raises(
        ValueError, match=f"at least 64 pixels wide and high, got {size[0]} x {size[1]}"
    ):
        processor(Image.new("RGB", size), **PLAIN)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_floats_out_of_range_are_refused(processor, value):
    array = np.full((64, 64, 3), 0.5, np.float32)
    array[3, 4, 1] = value
    for image in (array, torch.from_numpy(array).permute(2, 0, 1)):
        with pytest.raises(ValueError, match=r"`image` must hold floats in \[0, 1\]"):
            processor(image, **PLAIN)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((64, 64), np.uint8), ValueError, r"must have shape \(H, W, 3\)"),
        (np.zeros((3, 64, 64), np.uint8), ValueError, r"got \(3, 64, 64\) as an array"),
        (torch.zeros(64, 64, 3), ValueError, r"\(3, H, W\) as a tensor"),
        (np.zeros((64, 64, 3), np.int32), ValueError, "must hold uint8 or floats, got int32"),
        (None, TypeError, "must be a PIL image, a path, an array or a tensor, got NoneType"),
    ],
)
def test_other_things_are_refused(processor, image, error, message):
    with pytest.raises(error, match=message):
        processor(image, **PLAIN)


def test_empty_lists_are_refused(processor):
    with pytest.raises(ValueError, match="`images` must hold at least one portrait"):
        processor([])


def test_pictures_without_a_face_are_refused(processor, noise):
    with pytest.raises(ValueError, match=r"`image` must show an upright face.*detect_face=False"):
        processor(noise)


def test_save_and_load(tmp_path, noise):
    processor = PortraitImageProcessor(
        size=40, background=[0.1, 0.2, 0.3], face_scale=3.0, detect_face=False, min_side=32
    )
    processor.save_pretrained(tmp_path)
    loaded = PortraitImageProcessor.from_pretrained(tmp_path)
    names = ("size", "background", "face_scale", "detect_face", "min_side", "image_mean")
    assert all(getattr(loaded, name) == getattr(processor, name) for name in names)
    first, second = (p(noise)["pixel_values"] for p in (processor, loaded))
    assert torch.equal(first, second)


@needs_photograph
def test_a_face_is_found_and_framed(processor, photograph):
    (face, *_) = detect_faces(np.asarray(photograph))
    framed = PortraitImageProcessor(size=270).frame(photograph, remove_background=False)
    (found, *_) = detect_faces(np.asarray(framed))
    # The face has the side and the place that the processor promises.
    assert found.side == pytest.approx(270 / processor.face_scale, rel=0.15)
    assert found.center[0] == pytest.approx(135, abs=15)
    assert found.center[1] == pytest.approx(270 * processor.face_height, abs=15)
    assert face.side < photograph.width


@needs_photograph
def test_where_the_face_is_does_not_matter(photograph):
    processor = PortraitImageProcessor(size=64)
    canvas = Image.new("RGB", (700, 640), (120, 120, 120))
    canvas.paste(photograph, (150, 100))
    (here, *_), (there, *_) = (detect_faces(np.asarray(i)) for i in (photograph, canvas))
    assert there.center[0] - here.center[0] == pytest.approx(150, abs=12)
    assert there.center[1] - here.center[1] == pytest.approx(100, abs=12)
    assert processor(canvas)["pixel_values"].shape == (1, 3, 64, 64)


@needs_photograph
@pytest.mark.parametrize("large_first", [True, False])
def test_the_largest_of_several_faces_is_used(photograph, caplog, large_first):
    processor = PortraitImageProcessor(size=64)
    small = photograph.resize((300, 300))
    canvas = Image.new("RGB", (812, 512), (120, 120, 120))
    canvas.paste(photograph, (0 if large_first else 300, 0))
    canvas.paste(small, (512 if large_first else 0, 0))
    with caplog.at_level(logging.WARNING, "pointillist_hf.portraits.image_processing_portrait"):
        framed = processor.frame(canvas, remove_background=False)
    assert "faces were found; the largest is used" in caplog.text
    alone = processor.frame(photograph, remove_background=False)
    difference = np.asarray(framed, np.float32) - np.asarray(alone, np.float32)
    assert np.abs(difference).mean() < 20


@needs_photograph
def test_photographs_get_a_plain_background(processor, photograph):
    framed = np.asarray(processor.frame(photograph))
    backdrop = np.round(255 * np.array(processor.background))
    np.testing.assert_allclose(framed[0], np.broadcast_to(backdrop, (56, 3)), atol=1)
    assert np.abs(framed[26, 28] - backdrop).max() > 20

# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from pointillist_hf.portraits import picture_reading
from pointillist_hf.portraits.image_processing_portrait import PortraitImageProcessor
from pointillist_hf.portraits.picture_reading import (
    load_image,
    read_mask,
    read_picture,
    read_picture_size,
)

PLAIN = {"detect_face": False, "remove_background": False}


@pytest.fixture(scope="module")
def ramp():
    """Every value of every channel, in places that tell left from right and up from down."""
    rows, columns = np.mgrid[0:80, 0:96]
    return np.stack([3 * rows, 2 * columns, 255 - rows - columns], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def grey():
    return np.linspace(0, 255, 64 * 80).round().astype(np.uint8).reshape(64, 80)


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_opaque_alpha_says_nothing(ramp, tmp_path):
    plain = Image.fromarray(ramp)
    moving = {"save_all": True, "append_images": [ImageOps.mirror(plain)], "lossless": True}
    files = [
        save(plain.convert("RGBA"), tmp_path / "rgba.png"),
        save(plain.convert("RGBA"), tmp_path / "alpha.webp", lossless=True),
        save(plain, tmp_path / "moving.webp", **moving),
        save(plain, tmp_path / "moving.png", save_all=True, append_images=[ImageOps.flip(plain)]),
        save(plain.convert("RGBA"), tmp_path / "alpha.tif"),
    ]
    for file in files:
        image = read_picture(file)
        assert image.mode == "RGB", file
        assert np.array_equal(np.asarray(image), ramp), file


def test_rounded_corners_are_no_cut_out(ramp):
    image = Image.fromarray(ramp).convert("RGBA")
    alpha = np.full(ramp.shape[:2], 255, np.uint8)
    alpha[0, 0] = alpha[-1, -1] = 0
    image.putalpha(Image.fromarray(alpha))
    calls = []

    class Watched(PortraitImageProcessor):
        def normalize(self, image):
            calls.append(image)
            return super().normalize(image)

    loaded = load_image(image)
    assert loaded.mode == "RGBA"
    # The background is still taken out, which changes the picture.
    processor = Watched(size=56)
    kept = processor(image, **PLAIN)["pixel_values"]
    assert not torch.equal(kept, processor(image, detect_face=False)["pixel_values"])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_their_eight(grey, tmp_path, suffix):
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    image = read_picture(save(wide, tmp_path / f"wide.{suffix}"))
    assert np.array_equal(np.asarray(image)[..., 0], grey)


def test_floats_are_their_eight(grey, tmp_path):
    path = save(Image.fromarray(grey.astype(np.float32) / 255), tmp_path / "float.tif")
    assert np.array_equal(np.asarray(read_picture(path))[..., 1], grey)
    assert np.array_equal(np.asarray(read_mask(path)), grey)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((64, 64), 255.0, np.float32), r"floats must lie in \[0, 1\]"),
        (np.full((64, 64), np.nan, np.float32), "finite"),
        (np.full((64, 64), -0.5, np.float32), r"floats must lie in \[0, 1\]"),
        (np.full((64, 64), 4095, np.uint16), "16 bits per channel and its brightest value is 4095"),
        (np.full((64, 64), 255, np.uint16), "stretch it to the full range"),
        (np.full((64, 64), 70000, np.int32), "16 bits hold 0 to 65535"),
        (np.full((64, 64), -1, np.int32), "16 bits hold 0 to 65535"),
    ],
)
def test_numbers_beyond_their_depth_are_refused(tmp_path, values, message):
    path = save(Image.fromarray(values), tmp_path / "wrong.tif")
    with pytest.raises(ValueError, match=message):
        read_picture(path)
    with pytest.raises(ValueError, match=message):
        load_image(Image.fromarray(values))


def profile_with_red_and_green_swapped():
    """An sRGB profile whose first primaries change places: easy to see and to predict."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    name = data.find("sRGB".encode("utf-16-be"))
    while name >= 0:  # what is called sRGB is taken for it
        data[name : name + 8] = "XXXX".encode("utf-16-be")
        name = data.find("sRGB".encode("utf-16-be"))
    return bytes(data)


def test_profiles_are_followed(ramp, tmp_path):
    profile = profile_with_red_and_green_swapped()
    path = save(Image.fromarray(ramp), tmp_path / "wide.png", icc_profile=profile)
    found = np.asarray(read_picture(path)).astype(int)
    expected = ramp[..., [1, 0, 2]].astype(int)
    assert np.abs(found - expected).mean() < 2
    again = load_image(load_image(path))  # no profile is followed twice
    assert np.array_equal(np.asarray(again), found)
    transparent = Image.fromarray(ramp).convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    path = save(transparent, tmp_path / "wide.webp", icc_profile=profile, lossless=True)
    assert np.abs(np.asarray(read_picture(path))[..., :3].astype(int) - expected).mean() < 2


def test_srgb_profiles_change_nothing(ramp, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(Image.fromarray(ramp), tmp_path / "srgb.png", icc_profile=profile)
    assert np.array_equal(np.asarray(read_picture(path)), ramp)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200])
def test_broken_profiles_are_left_out_with_a_word(ramp, tmp_path, profile, caplog):
    path = save(Image.fromarray(ramp), tmp_path / "odd.png", icc_profile=profile)
    assert np.array_equal(np.asarray(read_picture(path)), ramp)
    assert "profile is left out" in caplog.text


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_every_mode_becomes_srgb(ramp, mode):
    image = Image.fromarray(ramp)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), lab, outputMode=mode
        )
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    found = load_image(image)
    assert found.mode == "RGB"
    if mode in ("YCbCr", "LAB", "RGBX"):
        assert np.abs(np.asarray(found).astype(int) - ramp).mean() < 3


def test_orientation(ramp, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    path = save(Image.fromarray(ramp), tmp_path / "turned.png", exif=exif)
    assert read_picture_size(path) == (80, 96) == read_picture(path).size
    assert np.array_equal(np.asarray(read_picture(path)), np.rot90(ramp, -1))
    assert read_mask(path).size == (80, 96)


def test_large_photographs_are_read_reduced(ramp, tmp_path, monkeypatch, caplog):
    path = save(Image.fromarray(ramp).resize((960, 800)), tmp_path / "large.jpg", quality=95)
    monkeypatch.setattr(picture_reading, "MAX_READ_PIXELS", 100_000)
    image = read_picture(path)
    assert image.size == (240, 200)
    assert "is read as 240 x 200" in caplog.text
    small = np.asarray(image.resize((96, 80))).astype(int)
    assert np.abs(small - ramp).mean() < 6


def test_bombs_are_refused(tmp_path):
    bomb = bytearray(save(Image.new("L", (64, 64)), tmp_path / "bomb.png").read_bytes())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bomb)
    for read in (read_picture, read_mask, read_picture_size):
        with pytest.raises(ValueError, match=r"bomb\.png cannot be read: it is too large"):
            read(tmp_path / "bomb.png")
    jpeg = bytearray(save(Image.new("L", (64, 64)), tmp_path / "bomb.jpg").read_bytes())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\x00\xff\x00"
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    with pytest.raises(ValueError, match="it has 65280 x 65280 pixels, and at most 268 million"):
        read_picture(tmp_path / "bomb.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "pip install pillow-heif"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "pip install pillow-heif"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"%PDF-1.7\n", "it is a PDF"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG"),
        (b"<!doctype html><html>", "it is a web page"),
        (b"GIF89a", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + 40 * b"\xff", "cannot be read"),
        (b"plain text", "no format that is known here"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_picture(path)


def test_postscript_starts_no_program(tmp_path, ramp, monkeypatch):
    path = save(Image.fromarray(ramp), tmp_path / "face.eps")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    with pytest.raises(ValueError, match="it is an EPS, which is not read; save it as PNG"):
        read_picture(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_files_that_end_early_are_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"cut.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="cannot be read"):
        read_picture(path)


def test_masks_of_ones_and_of_bits(tmp_path):
    inside = np.zeros((32, 40), np.uint8)
    inside[8:20, 10:30] = 1
    labels = Image.fromarray(inside).convert("P")
    labels.putdata(list(inside.flatten()))
    labels.putpalette([0, 0, 0, 128, 0, 0])
    alpha = Image.new("RGBA", (40, 32), (255, 255, 255, 0))
    alpha.putalpha(Image.fromarray(255 * inside))
    images = {
        "ones": Image.fromarray(inside),
        "bytes": Image.fromarray(255 * inside),
        "bits": Image.fromarray(inside.astype(bool)),
        "wide": Image.fromarray(inside.astype(np.uint16) * 65535),
        "wide ones": Image.fromarray(inside.astype(np.uint16)),
        "rgb": Image.fromarray(np.repeat(inside[..., None], 3, 2)),
        "labels": labels,
        "alpha": alpha,
    }
    for name, image in images.items():
        path = save(image, tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(read_mask(path)), 255 * inside), name


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8)), r"must have shape \(H, W, 3\)"),
        (np.zeros((0, 8, 3)), r"must have shape \(H, W, 3\)"),
        (np.zeros((8, 8, 2)), r"must have shape"),
        (np.full((8, 8, 3), 1.5), r"floats in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), "finite"),
        (np.zeros((8, 8, 3), np.int64), "uint8 or floats, got int64"),
        (np.zeros((8, 8, 3), np.complex64), "uint8 or floats, got complex64"),
        (torch.zeros(1, 3, 8, 8), r"must have shape"),
        (torch.zeros(3, 8, 8, dtype=torch.int16), "uint8 or floats, got int16"),
    ],
)
def test_arrays_of_other_kinds_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        load_image(array)


def test_all_of_it_transparent(tmp_path):
    path = save(Image.new("RGBA", (80, 80), (200, 150, 100, 0)), tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="all of it is transparent"):
        load_image(path)


def test_pictures_in_memory_that_are_damaged():
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    image = Image.open(io.BytesIO(buffer.getvalue()[:-400]))
    with pytest.raises(ValueError, match="`image` must be a picture"):
        load_image(image)

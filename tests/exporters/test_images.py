# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf.exporters.atomic_file import write_atomically, write_folder_atomically
from pointillist_hf.exporters.frame_stream import to_pictures
from pointillist_hf.exporters.images import write_contact_sheet, write_gif, write_png_folder
from pointillist_hf.exporters.video import write_mp4

COLORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
FRAMES = COLORS[:, None, None].expand(3, 12, 16, 3)  # one colour each


def test_gif_holds_every_frame(tmp_path):
    write_gif(FRAMES, tmp_path / "new" / "clip.gif", fps=10)
    with Image.open(tmp_path / "new" / "clip.gif") as clip:
        assert (clip.n_frames, clip.size) == (3, (16, 12))
        assert (clip.info["duration"], clip.info["loop"]) == (100, 0)
        for i, color in enumerate(COLORS):
            clip.seek(i)
            shown = np.asarray(clip.convert("RGB"))[6, 8] / 255
            np.testing.assert_allclose(shown, color, atol=0.02)


def test_a_folder_of_pictures(tmp_path):
    write_png_folder(FRAMES, tmp_path / "new" / "frames")
    files = sorted((tmp_path / "new" / "frames").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    for file, color in zip(files, COLORS, strict=True):
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == (12, 16, 3)
        np.testing.assert_array_equal(pixels[6, 8], (255 * color).round())


def test_folders_that_hold_something_are_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    write_png_folder(FRAMES, tmp_path / "empty")
    (tmp_path / "file").write_text("old")
    for name in ("empty", "file"):
        with pytest.raises(FileExistsError, match="`path` must be a new or empty folder"):
            write_png_folder(FRAMES[:1], tmp_path / name)
    assert len(list((tmp_path / "empty").iterdir())) == 3

    def fail(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder_atomically(tmp_path / "new", fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_mp4_holds_every_frame(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "new" / "clip.mp4"
    frames = FRAMES.repeat_interleave(4, dim=2).repeat_interleave(4, dim=1)
    write_mp4(frames, path, fps=10)
    assert [file.name for file in path.parent.iterdir()] == ["clip.mp4"]
    clip = cv2.VideoCapture(str(path))
    assert clip.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for color in COLORS:
        is_read, frame = clip.read()
        assert is_read and frame.shape == (48, 64, 3)
        np.testing.assert_allclose(frame[24, 32, ::-1] / 255, color, atol=0.06)
    assert not clip.read()[0]
    clip.release()


def test_contact_sheet_is_filled_row_by_row(tmp_path):
    write_contact_sheet(FRAMES, tmp_path / "sheet.png", columns=2, gap=3)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 12 + 3, 2 * 16 + 3, 3)
    corners = [sheet[0, 0], sheet[0, 19], sheet[15, 0]]
    np.testing.assert_allclose(np.stack(corners) / 255, COLORS, atol=0.01)
    assert (sheet[15, 19] == 255).all()


def test_labels_leave_the_images_alone(tmp_path):
    plain, labelled = tmp_path / "plain.png", tmp_path / "labelled.png"
    write_contact_sheet(FRAMES, plain)
    write_contact_sheet(FRAMES, labelled, labels=["one", "two", "three"])
    plain, labelled = np.asarray(Image.open(plain)), np.asarray(Image.open(labelled))
    np.testing.assert_array_equal(labelled[:12], plain)
    assert (labelled[12:] < 128).any()


def test_values_beyond_the_range_are_cut_off():
    pixels = np.asarray(next(to_pictures(torch.tensor([-1.0, 0.5, 2.0]).expand(1, 2, 2, 3))))
    assert pixels[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: write_gif(FRAMES[0], path), "`frames` must have shape"),
        (lambda path: write_gif(FRAMES[:0], path), "at least one picture"),
        (lambda path: write_gif(FRAMES, path, fps=0), "`fps` must be positive"),
        (lambda path: write_mp4(FRAMES, path, fps=float("inf")), "`fps` must be positive"),
        (lambda path: write_mp4(FRAMES[:, 1:], path), "even height and width .* got 11 x 16"),
        (lambda path: write_mp4(FRAMES[:0], path), "at least one picture"),
        (lambda path: write_png_folder(FRAMES[:0], path), "at least one picture"),
        (lambda path: write_contact_sheet(FRAMES, path, columns=0), "`columns`"),
        (lambda path: write_contact_sheet(FRAMES, path, labels=["one"]), "`labels`"),
    ],
)
def test_refusals(write, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, lambda partial: partial.write_text("old"))

    def fail(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"

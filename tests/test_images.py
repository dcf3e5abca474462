# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf.exporters.atomic_file import write_atomically
from pointillist_hf.exporters.images import to_pictures, write_contact_sheet, write_gif

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
    pixels = np.asarray(to_pictures(torch.tensor([-1.0, 0.5, 2.0]).expand(1, 2, 2, 3))[0])
    assert pixels[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: write_gif(FRAMES[0], path), "`frames` must have shape"),
        (lambda path: write_gif(FRAMES[:0], path), "at least one picture"),
        (lambda path: write_gif(FRAMES, path, fps=0), "`fps` must be positive"),
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

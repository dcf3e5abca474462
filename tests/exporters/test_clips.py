# SPDX-License-Identifier: Apache-2.0
"""Clips: written frame by frame, timed exactly, and whole or not there at all."""

import os
import stat
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pointillist_hf.exporters.clips import check_clip, write_clip
from pointillist_hf.exporters.frame_stream import open_frames, to_pictures
from pointillist_hf.exporters.images import write_gif, write_png_folder
from pointillist_hf.exporters.video import write_mp4

NAN = float("nan")


def build_frames(count, height=12, width=16):
    """A square that moves on a background that changes slowly."""
    for index in range(count):
        frame = torch.full((height, width, 3), 0.2 + 0.01 * (index // 3))
        column = index % (width - 4)
        frame[4:8, column : column + 4] = torch.tensor([0.9, 0.3, 0.1])
        yield frame


@pytest.fixture(params=[".gif", ".mp4", ""])
def suffix(request):
    if request.param == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    return request.param


def test_frames_are_asked_for_one_at_a_time(tmp_path, suffix):
    """A writer that holds its frames would let many live at once."""
    alive, most = set(), []

    class Frame(torch.Tensor):
        def __del__(self):
            alive.discard(id(self))

    def make():
        for frame in build_frames(40):
            frame = frame.as_subclass(Frame)
            alive.add(id(frame))
            most.append(len(alive))
            yield frame
            del frame

    write_clip(make(), tmp_path / f"clip{suffix}")
    assert len(most) == 40 and max(most) <= 3


def test_iterators_and_tensors_make_the_same_clip(tmp_path, suffix):
    write_clip(build_frames(7), tmp_path / f"one{suffix}", fps=12)
    write_clip(torch.stack([*build_frames(7)]), tmp_path / f"two{suffix}", fps=12)
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    if suffix:
        assert one.read_bytes() == two.read_bytes()
    else:
        assert [p.read_bytes() for p in sorted(one.iterdir())] == [
            p.read_bytes() for p in sorted(two.iterdir())
        ]


@pytest.mark.parametrize("fps", [50, 48, 30, 29.97, 24, 15, 7, 3.3, 0.5])
def test_gifs_last_as_long_as_their_frames(tmp_path, fps):
    write_gif(build_frames(60), tmp_path / "clip.gif", fps=fps)
    with Image.open(tmp_path / "clip.gif") as clip:
        delays = [frame.info["duration"] for frame in ImageSequence.Iterator(clip)]
    assert len(delays) == 60
    ends = np.cumsum(delays)
    # Each frame ends at the hundredth nearest to its time.
    np.testing.assert_allclose(ends, 1000 * np.arange(1, 61) / fps, atol=5.001)
    assert min(delays) >= 20


def test_gif_frames_are_those_given(tmp_path):
    """Also where only a part changed, or nothing did."""
    frames = [*build_frames(6)]
    frames[3:3] = [frames[2]]
    write_gif(iter(frames), tmp_path / "clip.gif")
    with Image.open(tmp_path / "clip.gif") as clip:
        assert clip.n_frames == 7 and clip.info["loop"] == 0
        for frame, shown in zip(frames, ImageSequence.Iterator(clip), strict=True):
            np.testing.assert_allclose(np.asarray(shown.convert("RGB")) / 255, frame, atol=0.003)


def test_gif_frames_of_many_colours(tmp_path):
    ramp = torch.linspace(0, 1, 64)
    base = torch.stack(
        [ramp[None].expand(64, 64), ramp[:, None].expand(64, 64), torch.full((64, 64), 0.5)], dim=-1
    )
    frames = [base, base.flip(0), base.flip(1)]
    write_gif(iter(frames), tmp_path / "clip.gif")
    with Image.open(tmp_path / "clip.gif") as clip:
        for frame, shown in zip(frames, ImageSequence.Iterator(clip), strict=True):
            error = np.abs(np.asarray(shown.convert("RGB")) / 255 - frame.numpy())
            assert error.mean() < 0.03 and error.max() < 0.12


@pytest.mark.parametrize("fps", [0, -3, NAN, 1e-9, float("inf"), 1e9])
def test_rates_that_are_none_are_refused(tmp_path, suffix, fps):
    if suffix:
        with pytest.raises(
            ValueError, match=r"`fps` must be positive, 0.01 to 1000 frames per sec"
        ):
            write_clip(build_frames(3), tmp_path / f"clip{suffix}", fps=fps)
    with pytest.raises(ValueError, match=r"`fps` must be positive"):
        check_clip(tmp_path / f"clip{suffix}", width=16, height=12, fps=fps)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [50.01, 60, 120])
def test_rates_that_no_gif_has_are_refused(tmp_path, fps):
    for attempt in (
        lambda: write_gif(build_frames(3), tmp_path / "clip.gif", fps=fps),
        lambda: check_clip(tmp_path / "clip.gif", width=16, height=12, fps=fps),
    ):
        with pytest.raises(ValueError, match=r"at most 50 in a \.gif.*or write an \.mp4"):
            attempt()
    pytest.importorskip("imageio_ffmpeg")
    check_clip(tmp_path / "clip.mp4", width=16, height=12, fps=fps)
    assert not list(tmp_path.iterdir())


def test_targets_are_looked_at_before_the_first_frame(tmp_path, suffix):
    def explode():
        raise AssertionError
        yield

    target = tmp_path / f"clip{suffix}"
    target.mkdir()
    (target / "something").write_text("old")
    with pytest.raises(OSError, match="`path` must be a"):
        write_clip(explode(), target)
    with pytest.raises(OSError, match="`path` must be a"):
        check_clip(target, width=16, height=12)
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="`path` must lie in a folder"):
        write_clip(explode(), tmp_path / "file" / f"clip{suffix}")


def test_clips_have_no_other_suffix(tmp_path):
    for name in ("clip.avi", "clip.GIFF", "clip.webm"):
        with pytest.raises(ValueError, match=rf"one of \.gif, \.mp4 or be a folder, got '{name}'"):
            check_clip(tmp_path / name, width=16, height=12)


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        (lambda: iter(()), "at least one picture"),
        (lambda: iter([torch.rand(4, 6, 4)]), r"shape \(\*, \*, 3\), got \(4, 6, 4\)"),
        (lambda: iter([torch.rand(4, 6, 3), torch.rand(6, 4, 3)]), "4 x 6 and, as frame 1, 6 x 4"),
        (lambda: iter([torch.zeros(4, 6, 3, dtype=torch.uint8)]), "divide bytes by 255"),
        (lambda: iter([torch.rand(4, 6, 3), torch.full((4, 6, 3), NAN)]), "frame 1 is not"),
        (lambda: torch.rand(4, 6, 3), r"`frames` must have shape \(\*, \*, \*, 3\)"),
    ],
)
def test_frames_that_are_no_pictures_are_refused(tmp_path, suffix, frames, match):
    with pytest.raises(ValueError, match=match):
        write_clip(frames(), tmp_path / f"clip{suffix}")
    assert not list(tmp_path.iterdir())


def test_only_the_first_frame_is_made_for_the_size():
    made = []
    size, pictures = open_frames(made.append(1) or frame for frame in build_frames(5))
    assert size == (16, 12) and made == [1]
    assert len([*pictures]) == 5
    assert next(to_pictures(torch.zeros(1, 2, 3, 3))).size == (3, 2)


# The encoder --------------------------------------------------------------------------------------


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """Puts a program in the place of ffmpeg."""
    pytest.importorskip("imageio_ffmpeg")

    def install(script):
        program = tmp_path / "bin" / "ffmpeg"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nfor target; do :; done\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))

    return install


@pytest.mark.parametrize(
    ("script", "match"),
    [
        (
            'cat > "$target"; echo "No space left on device" >&2; exit 228',
            "exit code 228: No space",
        ),
        ('head -c 100 > "$target"; kill -9 $$', "was ended by signal 9: it said nothing"),
        ("exit 3", "exit code 3"),
        ("cat > /dev/null; seq 100000 >&2; exit 1", "exit code 1: 99941 .* 100000"),
    ],
)
@pytest.mark.parametrize("old", [b"old", None])
def test_an_encoder_that_fails_leaves_no_half_file(tmp_path, encoder, script, match, old):
    encoder(script)
    path = tmp_path / "out" / "clip.mp4"
    path.parent.mkdir()
    if old:
        path.write_bytes(old)
    frames = build_frames(200, height=64, width=64)  # more than a pipe holds
    with pytest.raises(OSError, match=rf"`path` could not be written: ffmpeg.*clip\.mp4.*{match}"):
        write_mp4(frames, path)
    assert [p.read_bytes() for p in path.parent.iterdir()] == ([old] if old else [])


def test_an_encoder_is_ended_with_the_frames(tmp_path, encoder):
    encoder('cd "$(dirname "$0")"; echo $$ > new; mv new process; exec sleep 60 > /dev/null')

    def stop():
        yield from build_frames(2)
        while not (tmp_path / "bin" / "process").is_file():
            time.sleep(0.01)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        write_mp4(stop(), tmp_path / "out" / "clip.mp4")
    assert time.monotonic() - start < 45
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "bin" / "process").read_text()), 0)


@pytest.mark.parametrize("fps", [0.5, 24000 / 1001, 60, 120])
def test_rates_of_mp4(tmp_path, fps):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    write_mp4(build_frames(5), tmp_path / "clip.mp4", fps=fps)
    clip = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert clip.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-4)
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    clip.release()


def test_a_missing_frame_ends_the_folder(tmp_path):
    def stop():
        yield from build_frames(2)
        raise KeyboardInterrupt

    for write, name in ((write_png_folder, "frames"), (write_gif, "clip.gif")):
        with pytest.raises(KeyboardInterrupt):
            write(stop(), tmp_path / name)
    assert not list(tmp_path.iterdir())

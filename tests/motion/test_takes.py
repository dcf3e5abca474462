# SPDX-License-Identifier: Apache-2.0
"""Takes of Live Link Face, MediaPipe and Audio2Expression: names, strengths, times, gaps, turns."""

import json

import pytest
import torch

from pointillist_hf.geometry.rotations import axis_angle_to_matrix
from pointillist_hf.motion.arkit_names import ARKIT_NAMES, find_arkit_name, mirror_name
from pointillist_hf.motion.motion_files import read_motion

JAW = 0.35  # radians of a full `jawOpen`


@pytest.fixture
def read(tiny_rig, tmp_path):
    """Writes a file and reads it as motion."""

    def read_content(content, *, suffix=".csv", **options):
        path = tmp_path / f"take{suffix}"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_motion(path, tiny_rig, **options)

    return read_content


@pytest.fixture
def strength(tiny_rig):
    """Strengths of a named expression in every frame."""

    def of(params, name):
        return params.expression[:, tiny_rig.expression_names.index(name)].tolist()

    return of


def jaw(params):
    return (params.jaw_pose[:, 0] / JAW).tolist()


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARKIT_NAMES)
def test_every_spelling_is_found(name):
    capital = name[0].upper() + name[1:]
    short = name.replace("Left", "_L").replace("Right", "_R")
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    spellings = (name, capital, short, snake, name.lower(), f"Face.{name}", f"blendShape2.{short}")
    assert {find_arkit_name(spelling) for spelling in spellings} == {name}
    assert mirror_name(mirror_name(name)) == name


def test_other_names_are_none_of_arkits():
    for name in ("", "smile", "eyeBlink", "HeadYaw", "LeftEyeYaw", "_neutral", "Left", "jawOpen2"):
        assert find_arkit_name(name) is None


@pytest.mark.parametrize(
    "header",
    [
        "jawOpen,eyeBlink_L,mouthSmile_R",
        "JawOpen,EyeBlinkLeft,MouthSmileRight",
        "jawOpen;m.eyeBlink_L;m.mouthSmile_R",
    ],
)
def test_sides_reach_the_rig(header, read, strength):
    delimiter = ";" if ";" in header else ","
    params = read(f"{header}\n" + delimiter.join(["0.8"] * 3) + "\n")
    assert strength(params, "eyeBlinkLeft") == pytest.approx([0.8])
    assert strength(params, "mouthSmileRight") == pytest.approx([0.8])
    assert jaw(params) == pytest.approx([0.8])


def test_columns_left_out_are_named_once(read, caplog):
    read("jawOpen,smile,LeftEyeYaw,_neutral,BlendShapeCount\n0.5,1,0.1,1,61\n")
    (record,) = caplog.records
    assert "smile (no coefficient of ARKit's)" in record.message
    assert "LeftEyeYaw (the eyeLook coefficients say the same)" in record.message
    assert "_neutral" not in record.message


# Strengths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("jawOpen,mouthSmileLeft\n0,0\n85,60\n", [0, 0.85]),
        ("jawOpen\n3\n42.5\n", [0.03, 0.425]),
        ("jawOpen,mouthSmileLeft,mouthPucker\n110,40,0\n0,0,0\n", [1.1, 0]),
    ],
)
def test_percent_is_seen_and_said(rows, expected, read, caplog):
    assert jaw(read(rows)) == pytest.approx(expected)
    assert "counts from 0 to 100" in caplog.text


def test_percent_can_be_said(read):
    assert jaw(read("jawOpen\n1\n2\n", percent=True)) == pytest.approx([0.01, 0.02])
    with pytest.raises(ValueError, match=r"`jawOpen` of .* must lie in \[0, 1\].* got 85"):
        read("jawOpen\n85\n60\n", percent=False)


def test_a_little_beyond_is_taken(read, caplog):
    assert jaw(read("jawOpen\n-0.05\n1.2\n")) == pytest.approx([-0.05, 1.2])
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("jawOpen\n0.1\n5\n", r"`jawOpen` of .* must lie in \[0, 1\].* got 5\..*percent=True"),
        ("jawOpen,mouthPucker\n0.5,0.2\n50,0.3\n", "must lie in .* got 50"),
        ("jawOpen\n0.1\n-3\n", "must lie in .* got -3"),
        ("jawOpen,jawLeft\n2000,500\n", "must lie in .* got 2000"),
        ("jawOpen\n0.1\nnan\n0.2\n", "`jawOpen` in line 3 .* got 'nan'"),
        ("jawOpen,jawLeft\n0.1,0\nnan,0\n", "`jawOpen` in line 3 .* got 'nan'"),
        ("jawOpen\n0.1\ninf\n", "finite"),
        ("jawOpen\n0.1\n0x1\n", "`jawOpen` in line 3 .* got '0x1'"),
        ("jawOpen,jawOpen\n0,0\n", "name each column once, got 'jawOpen'"),
        ("eyeBlink_L,EyeBlinkLeft\n0,0\n", "each coefficient once, got `eyeBlinkLeft` as 'eyeBl"),
        ("jawOpen,jawLeft\n0,5,0,1\n", "Line 2 .* must have 2 cells .* got 4.*decimal points"),
        ("jawOpen\n", "at least one row"),
    ],
)
def test_what_cannot_be_is_refused(content, message, read):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_decimal_commas_between_semicolons(read):
    assert jaw(read("jawOpen;jawLeft\n0,5;0\n1,0;0,1\n")) == pytest.approx([0.5, 1])


# Times --------------------------------------------------------------------------------------------


def ramp(count, stamp, header="Timecode"):
    """A jaw that opens evenly, and when."""
    rows = "\n".join(f"{stamp(i)},{i / (count - 1):.6f}" for i in range(count))
    return f"{header},jawOpen\n{rows}\n"


def time_code(index, rate, start=0):
    seconds, frames = divmod(index + start, rate)
    clock = f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}:{frames:02}.000"


@pytest.mark.parametrize("rate", [24, 25, 30, 60])
@pytest.mark.parametrize("fps", [12.5, 25, 30])
def test_a_take_keeps_its_time(rate, fps, read):
    params = read(ramp(4 * rate, lambda i: time_code(i, rate)), fps=fps)
    assert len(params) == int((4 * rate - 1) * fps / rate + 1e-6) + 1
    expected = torch.arange(len(params)) / fps * rate / (4 * rate - 1)
    torch.testing.assert_close(torch.tensor(jaw(params)), expected, atol=1e-5, rtol=0)


def test_two_minutes_stay_two_minutes(read):
    params = read(ramp(30 * 134, lambda i: time_code(i, 30)), fps=25)
    assert len(params) == 134 * 25


@pytest.mark.parametrize(
    ("header", "stamp"),
    [
        ("time", lambda i: f"{7 + i / 50:.3f}"),
        ("timestamp", lambda i: f"{1732900000000 + 20 * i}"),
        ("timestamp_ms", lambda i: f"{20 * i}"),
        ("timestampMs", lambda i: f"{20 * i}"),
        ("time_us", lambda i: f"{20000 * i}"),
        ("time", lambda i: f"00:01:{i // 50:02}.{i % 50 * 20:03}"),
        ("Timecode", lambda i: time_code(i, 50, start=50 * 86399)),  # past midnight
        ("Timecode", lambda i: f"01:00:{i // 50:02}:{i % 50 * 20:03}"),  # milliseconds
        ("Timecode", lambda i: f"01:00:{i // 50:02}:{i % 50 / 2 // 1:02.0f}.{i % 2 * 500:03}"),
    ],
)
def test_times_of_many_kinds(header, stamp, read):
    params = read(ramp(101, stamp, header), fps=10)
    assert jaw(params) == pytest.approx([i / 20 for i in range(21)], abs=1e-5)


def test_without_times_rows_are_frames_and_it_is_said(read, caplog):
    assert len(read("jawOpen\n0\n0.5\n1\n", fps=25)) == 3
    assert "says nothing of its times; its 3 frames" in caplog.text
    assert len(read("jawOpen\n0\n0.5\n1\n", fps=25, take_fps=12.5)) == 5
    assert len(read("fps,jawOpen\n50,0\n50,0.5\n50,1\n", fps=25)) == 2


def test_short_takes_are_of_live_link_faces_rate(read, caplog):
    content = ramp(13, lambda i: time_code(i, 60))
    assert len(read(content, fps=60)) == 13
    assert "too short to tell" in caplog.text
    assert len(read(content, fps=60, take_fps=30)) == 25


def test_without_a_clip_frames_stay_as_they_are(read):
    assert len(read(ramp(70, lambda i: time_code(i, 30)))) == 70


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("time,jawOpen\n0,0\n0.1,0\n0.05,0\n0.15,0\n", {}, "must grow from frame to frame"),
        ("time,jawOpen\n0,0\n0.1,0\n0.1,0\n0.2,0\n", {}, "must grow from frame to frame"),
        (ramp(90, lambda i: time_code(i, 37)), {}, "count to a rate of recorders .*about 37"),
        ("Timecode,jawOpen\n00:00:00,0\nnoon,0\n", {}, "Time codes .* got '00:00:00'|'noon'"),
        ("time,jawOpen\n0,0\n1.5,0\n3,0\n", {}, "times of 1 to 500 frames per second"),
        ("time,jawOpen\n0,0\n,0\n0.1,0\n", {}, "`time` of .* finite numbers in every row"),
        ("frame,jawOpen\n0,0\n0,0\n", {}, "whole and grow"),
        ("frame,jawOpen\n0,0\n99999999,0\n", {}, "leap too far"),
        ("fps,jawOpen\n25,0\n30,0\n", {}, "`fps` of .* one number throughout"),
        ("fps,jawOpen\n0,0\n0,0\n", {}, "rate of .* 1 to 1000 frames per second, got 0"),
        ("jawOpen\n0\n", {"fps": 1e-9}, "`fps` must be 1 to 1000"),
        ("jawOpen\n0\n", {"fps": float("nan")}, "`fps` must be 1 to 1000"),
        ("jawOpen\n0\n", {"take_fps": 1e9}, "`take_fps` must be 1 to 1000"),
        ("jawOpen\n0\n", {"max_gap": -1}, "`max_gap` must be seconds"),
    ],
)
def test_times_that_cannot_be_are_refused(content, options, message, read):
    with pytest.raises(ValueError, match=message):
        read(content, **options)


# Gaps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "jawOpen,jawLeft\n0,0\n,\n,\n0.6,0.3\n",
        "jawOpen,jawLeft\n0,0\nnan,nan\nNaN,NaN\n0.6,0.3\n",
        "frame,jawOpen,jawLeft\n0,0,0\n3,0.6,0.3\n",
        "success,jawOpen,jawLeft\n1,0,0\n0,0.9,0.9\n0,0.9,0.9\n1,0.6,0.3\n",
        "Timecode,BlendShapeCount,jawOpen,jawLeft\n00:00:00:00,61,0,0\n00:00:00:01,0\n"
        "00:00:00:02,0\n00:00:00:03,61,0.6,0.3\n",
    ],
)
def test_frames_without_a_face_lie_between_their_neighbours(content, read, strength, caplog):
    params = read(content)
    assert jaw(params) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert strength(params, "jawLeft") == pytest.approx([0, 0.1, 0.2, 0.3])
    assert "2 frames without a face" in caplog.text


def test_frames_that_were_not_written_are_bridged(read, caplog):
    rows = [i for i in range(60) if i not in (20, 21, 22)]
    content = "time,jawOpen\n" + "".join(f"{i / 30:.5f},{i / 60}\n" for i in rows)
    assert jaw(read(content, fps=30)) == pytest.approx([i / 60 for i in range(60)], abs=1e-4)
    assert "3 frames without a face" in caplog.text


def test_at_the_ends_the_nearest_face_is_held(read):
    assert jaw(read("jawOpen,jawLeft\n,\n0.4,0\n0.6,0\n,\n")) == pytest.approx([0.4, 0.4, 0.6, 0.6])


def test_long_gaps_are_refused(read):
    content = "time,jawOpen\n0,0\n0.04,0\n0.08,0\n1.12,1\n1.16,1\n"
    with pytest.raises(ValueError, match=r"no face for 1.00 s from 0.08 s on.*`max_gap`"):
        read(content)
    assert len(read(content, fps=25, max_gap=2)) == 30
    with pytest.raises(ValueError, match=r"no face for 1.00 s"):
        read("jawOpen,jawLeft\n0,0\n" + 30 * ",\n" + "1,0\n")
    with pytest.raises(ValueError, match="at least one frame with a face"):
        read("jawOpen,jawLeft\n,\nnan,nan\n")


# Turns of the head --------------------------------------------------------------------------------


def turned(params):
    """Where the rig's axes x, y, z go in the first frame, as columns."""
    return axis_angle_to_matrix(params.neck_pose)[0]


@pytest.mark.parametrize(
    ("turns", "axis", "expected"),
    [
        ("0.5,0,0", 2, (0.479, 0, 0.878)),  # yaw: the nose goes to the subject's left
        ("0,0.5,0", 2, (0, -0.479, 0.878)),  # pitch: the nose goes down
        ("0,0,0.5", 1, (-0.479, 0.878, 0)),  # roll: the crown goes to the subject's right
    ],
)
def test_signs_of_live_link_face(turns, axis, expected, read):
    content = f"jawOpen,HeadYaw,HeadPitch,HeadRoll\n0,{turns}\n"
    params = read(content)
    assert turned(params)[:, axis].tolist() == pytest.approx(expected, abs=1e-3)
    assert params.global_orient.abs().max() == 0
    assert read(content, head_rotation=False).neck_pose.abs().max() == 0


def test_a_mirror_changes_sides(read, strength):
    content = "jawLeft,mouthSmile_R,jawOpen,HeadYaw,HeadPitch,HeadRoll\n0.5,0.3,1,0.2,0.1,0.05\n"
    plain, mirrored = read(content), read(content, mirror=True)
    assert strength(mirrored, "jawRight") == pytest.approx([0.5])
    assert strength(mirrored, "mouthSmileLeft") == pytest.approx([0.3])
    assert strength(mirrored, "jawLeft") == strength(mirrored, "mouthSmileRight") == [0]
    flip = torch.tensor([1.0, -1, -1])
    torch.testing.assert_close(mirrored.neck_pose, plain.neck_pose * flip)


def test_turns_between_frames_are_turns(read):
    content = "time,jawOpen,HeadYaw,HeadPitch,HeadRoll\n0,0,-0.4,0,0\n0.1,0,0.4,0,0\n"
    assert read(content, fps=20).neck_pose[:, 1].tolist() == pytest.approx([-0.4, 0, 0.4])


@pytest.mark.parametrize("angle", ["40", "2.5", "400"])
def test_turns_in_other_units_are_refused(angle, read):
    content = f"jawOpen,HeadYaw,HeadPitch,HeadRoll\n0,{angle},0,0\n"
    with pytest.raises(ValueError, match=r"must be radians .*`head_rotation=False`"):
        read(content)
    assert len(read(content, head_rotation=False)) == 1


def test_two_of_three_turns_are_left_out_by_name(read, caplog):
    assert read("jawOpen,HeadYaw,HeadPitch\n0,0.1,0.1\n").neck_pose.abs().max() == 0
    assert "HeadYaw, HeadPitch (not all three turns are there)" in caplog.text

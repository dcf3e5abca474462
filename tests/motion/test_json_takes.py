# SPDX-License-Identifier: Apache-2.0
"""Takes in .json, and MediaPipe's tables of categories."""

import json
import math

import pytest
import torch

from pointillist_hf.geometry.rotations import axis_angle_to_matrix
from pointillist_hf.motion.arkit_names import ARKIT_NAMES
from pointillist_hf.motion.motion_files import read_motion

JAW = 0.35  # radians of a full `jawOpen`
TURN = axis_angle_to_matrix(torch.tensor([0.1, 0.3, -0.2]))


@pytest.fixture
def read(tiny_rig, tmp_path):
    """Writes a file and reads it as motion."""

    def read_content(content, *, suffix=".json", **options):
        path = tmp_path / f"take{suffix}"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_motion(path, tiny_rig, **options)

    return read_content


def jaw(params):
    return (params.jaw_pose[:, 0] / JAW).tolist()


# Names once, weights per frame --------------------------------------------------------------------


def curves(count=4, fps=30, **changes):
    """What Audio2Expression writes, of a jaw that opens evenly."""
    names = list(ARKIT_NAMES)
    frames = [
        {"weights": [i / 10 * (name == "jawOpen") for name in names], "time": i / fps,
         "rotation": []}
        for i in range(count)
    ]  # fmt: skip
    metadata = {"fps": fps, "frame_count": count, "blendshape_names": names}
    return {"names": names, "metadata": metadata, "frames": frames, **changes}


def test_curves_of_audio2expression(read):
    assert jaw(read(curves())) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert jaw(read(curves(), fps=60)) == pytest.approx([i / 20 for i in range(7)])


def test_a_rate_without_times(read):
    content = curves(names=None)
    for frame in content["frames"]:
        del frame["time"]
    assert jaw(read(content, fps=15)) == pytest.approx([0, 0.2])


def test_curves_of_audio2face(read, caplog):
    content = {
        "exportFps": 60,
        "numFrames": 3,
        "facsNames": ["jawOpen", "eyeBlinkLeft", "tongueTipUp"],
        "weightMat": [[0, 0, 1], [0.5, 0, 1], [1, 0, 1]],
    }
    assert jaw(read(content, fps=30)) == pytest.approx([0, 1])
    assert "tongueTipUp (no coefficient of ARKit's)" in caplog.text


def test_turns_of_no_known_convention_are_left_out_by_name(read, caplog):
    content = curves()
    content["frames"][1]["rotation"] = [0.1, 0, 0]
    assert read(content).neck_pose.abs().max() == 0
    assert "rotation (turns of the head in no known convention)" in caplog.text


# Results per frame --------------------------------------------------------------------------------


def category(name, score, style="python"):
    key = "category_name" if style == "python" else "categoryName"
    return {"index": 0, "score": score, key: name}


def result(opening, style="python", **others):
    """A frame of FaceLandmarker."""
    names = {"_neutral": 0.0, "jawOpen": opening, "jawLeft": 0.0}
    categories = [category(name, score, style) for name, score in names.items()]
    if style == "python":
        return {"face_blendshapes": [categories], **others}
    return {"faceBlendshapes": [{"categories": categories, "headIndex": -1}], **others}


@pytest.mark.parametrize("style", ["python", "javascript"])
def test_results_of_mediapipe(style, read):
    frames = [result(0.2 * i, style, timestamp_ms=40 * i) for i in range(5)]
    assert jaw(read(frames)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert jaw(read({"frames": frames}, fps=12.5)) == pytest.approx([0, 0.4, 0.8])


@pytest.mark.parametrize(
    "frames",
    [
        [{"jawOpen": 0.0, "time": 0}, {"jawOpen": 0.5, "time": 0.04}],
        [{"blendshapes": {"jawOpen": 0.0}}, {"blendshapes": {"jawOpen": 0.5}}],
        [[category("jawOpen", 0.0)], [category("jawOpen", 0.5)]],
    ],
)
def test_plain_frames(frames, read):
    assert jaw(read(frames)) == pytest.approx([0, 0.5])


@pytest.mark.parametrize("empty", [[], None, [[]]])
def test_frames_without_a_face(empty, read, caplog):
    frames = [result(0.0), {"face_blendshapes": empty}, result(0.6)]
    assert jaw(read(frames)) == pytest.approx([0, 0.3, 0.6])
    assert "1 frame without a face" in caplog.text


def test_further_faces_are_left_out(read, caplog):
    two = {"face_blendshapes": [*result(0.3)["face_blendshapes"], *result(0.9)["face_blendshapes"]]}
    assert jaw(read([two])) == pytest.approx([0.3])
    assert "further faces (the first of a frame is taken)" in caplog.text


def matrix(scale=1.0, shift=(1.0, 2.0, -40.0)):
    whole = torch.eye(4)
    whole[:3, :3], whole[:3, 3] = scale * TURN, torch.tensor(shift)
    return whole


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_matrices_turn_the_neck(scale, read, caplog):
    rows = matrix(scale).tolist()
    column_major = {"rows": 4, "columns": 4, "data": matrix(scale).T.flatten().tolist()}
    still = {"rows": 4, "columns": 4, "data": matrix(scale, (0, 0, 0)).T.flatten().tolist()}
    for value in ([rows], rows, [column_major], [still], matrix(scale).flatten().tolist()):
        for style in ("python", "javascript"):
            key = "facial_transformation_matrixes" if style == "python" else (
                "facialTransformationMatrixes")  # fmt: skip
            params = read([result(0.1, style, **{key: value})])
            turned = axis_angle_to_matrix(params.neck_pose)[0]
            torch.testing.assert_close(turned, TURN, atol=1e-5, rtol=0)
    content = [result(0.1, facial_transformation_matrixes=[rows])]
    assert read(content, head_rotation=False).neck_pose.abs().max() == 0
    assert "facial_transformation_matrixes (turns of the head)" in caplog.text


def test_a_frame_without_a_face_turns_half_way(read):
    first, last = (axis_angle_to_matrix(torch.tensor([0.0, a, 0.0])) for a in (0.0, 0.4))
    frames = []
    for rotation in (first, None, last):
        whole = torch.eye(4)
        if rotation is not None:
            whole[:3, :3] = rotation
        known = {"facial_transformation_matrixes": [whole.tolist()]} if rotation is not None else {}
        frames.append(result(0.1, **known) if known else {"face_blendshapes": []})
    assert read(frames).neck_pose[:, 1].tolist() == pytest.approx([0, 0.2, 0.4], abs=1e-5)


def test_tables_of_categories(read, caplog):
    rows = [
        f"{i},{name},{score}"
        for i in (0, 40, 120)
        for name, score in (("_neutral", 0.1), ("jawOpen", i / 200), ("jawLeft", 0))
    ]
    content = "timestamp_ms,category_name,score\n" + "\n".join(rows) + "\n"
    assert jaw(read(content, suffix=".csv", fps=25)) == pytest.approx([0, 0.2, 0.4, 0.6])
    by_number = content.replace("timestamp_ms", "frame").replace("\n120,", "\n3,")
    by_number = by_number.replace("\n40,", "\n1,")
    assert jaw(read(by_number, suffix=".csv")) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert "1 frame without a face" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as .json"),
        ("[" * 200_000, "nested too deep"),
        ('{"jawOpen": 1', "cannot be read as .json"),
        ("null", "must hold `frames`"),
        ("5", "must hold `frames`"),
        ("{}", "must hold `frames`"),
        ('{"frames": {}}', "must hold `frames`"),
        ('[{"jawOpen": NaN}]', "NaN is no number"),
        ('[{"jawOpen": 0, "jawOpen": 1}]', "'jawOpen' stands more than once"),
        ([{"jawOpen": True}], "`jawOpen` of frame 0 of .* must be a number, got 'True'"),
        ([{"jawOpen": "0.5"}], "`jawOpen` of frame 0 of .* must be a number, got '0.5'"),
        ([{"jawOpen": 10**400}], "`jawOpen` of frame 0 .* finite"),
        ([{"jawOpen": 7}], r"must lie in \[0, 1\]"),
        ([{"smile": 0.5}], "scores under ARKit's names .* got smile"),
        ([{"jawOpen": 0, "JawOpen": 0}], "each coefficient once"),
        ([{"jawOpen": 0}, {"jawLeft": 0}], "and some lack jawLeft"),
        ([{"jawOpen": 0, "jawLeft": 0}, {"jawOpen": 0}], "Frame 1 .* lacks jawLeft"),
        ([{"face_blendshapes": []}], "at least one frame with a face"),
        ([{"face_blendshapes": 5}], "categories with a name and a score"),
        ([{"face_blendshapes": [None]}], "categories with a name and a score"),
        ([{"face_blendshapes": [[category("jawOpen", 0)] * 2]}], "each category once"),
        ([result(0.1, time=0), result(0.1, time="now")], "`time` of .* must be a number"),
        ([result(0.1, facial_transformation_matrixes=[[1, 2]])], "4 x 4 numbers, got"),
        ([result(0.1, facial_transformation_matrixes=[[[]] * 4])], "4 x 4 numbers, got"),
        ([result(0.1, facial_transformation_matrixes=[torch.diag(torch.tensor(
            [1.0, 1, -1, 1])).tolist()])], "turn and scale alone"),
        ([result(0.1, facial_transformation_matrixes=[torch.zeros(4, 4).tolist()])],
         "turn and scale alone"),
        (curves(names=["jawOpen"]), "`weights` of frame 0 of .* must be 1 numbers, one per name"),
        (curves(names="jawOpen"), "`names` of .* list of names"),
        (curves(names=["jawOpen", "jawOpen"]), "`names` of .* unlike"),
        (curves(names=["a", "b"]), "`names` of .* must be ARKit's, got a, b"),
        (curves(frames=[]), "`frames` of .* at least one frame"),
        (curves(frames=[{"weights": [math.pi] * 52}]), r"must lie in \[0, 1\]"),
        (curves(frames=[{"weights": ["a"] * 52}]), "must be a number, got 'a'"),
        ({"names": ["jawOpen"], "weights": [[0], [1]], "fps": 0}, "rate of .* 1 to 1000"),
        ({"names": ["jawOpen"], "weights": [[0], [1]], "fps": "x"}, "`fps` of .* must be a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(content, message, read):
    with pytest.raises(ValueError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("category_name,score\njawOpen,0.1\njawOpen,0.2\n", "Line 3 .* gives `jawOpen` twice"),
        ("category_name,score\njawOpen,\n", "must give `jawOpen` a number"),
        ("category_name,score\nsmile,0.1\n", "scores under ARKit's names"),
        ("frame,category_name,score\n0,jawOpen,0.1\n1,jawLeft,0.1\n", "some lack jawLeft"),
    ],
)
def test_tables_that_cannot_be_are_refused(content, message, read):
    with pytest.raises(ValueError, match=message):
        read(content, suffix=".csv")

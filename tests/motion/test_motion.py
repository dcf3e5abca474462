# SPDX-License-Identifier: Apache-2.0
"""Motion by ARKit's coefficients and from the files of other programs."""

import numpy as np
import pytest
import torch
from fake_flame import write_flame

from pointillist_hf import FlameHeadRig
from pointillist_hf.motion.arkit import ARKIT_NAMES, JOINT_MOVES, arkit_params, fit_expression_map
from pointillist_hf.motion.motion_files import read_motion

# A tongue needs an open jaw and closed lips close one: neither means anything alone.
PAIRED = ("tongueOut", "mouthClose")
PLAIN_NAMES = [n for n in ARKIT_NAMES if n not in (*JOINT_MOVES, *PAIRED)]


def test_there_are_52_names():
    assert len({*ARKIT_NAMES}) == 52
    assert {*JOINT_MOVES} < {*ARKIT_NAMES}


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_expressions_of_the_same_name_are_taken_as_they_are(name, tiny_rig):
    params = arkit_params({name: 0.7}, tiny_rig)
    assert torch.equal(params.expression, tiny_rig.expression({name: 0.7}))
    assert params.poses.abs().max() == 0


def pupils(rig, params):
    """Front of each eyeball, seen from its centre. [2, 3]"""
    vertices, still = rig(params)[0], rig.v_template
    result = []
    for side in ("left", "right"):
        ids = rig.mask(f"eye_{side}")
        front = ids[still[ids, 2].argmax()]
        result.append(vertices[front] - still[front])
    return torch.stack(result)


@pytest.mark.parametrize(
    ("name", "side", "axis", "sign"),
    [
        ("eyeLookUpLeft", 0, 1, 1),
        ("eyeLookDownLeft", 0, 1, -1),
        ("eyeLookOutLeft", 0, 0, 1),  # x points to the subject's left
        ("eyeLookInLeft", 0, 0, -1),
        ("eyeLookUpRight", 1, 1, 1),
        ("eyeLookDownRight", 1, 1, -1),
        ("eyeLookOutRight", 1, 0, -1),
        ("eyeLookInRight", 1, 0, 1),
    ],
)
def test_eyes_look_where_the_name_says(name, side, axis, sign, tiny_rig):
    moved = pupils(tiny_rig, arkit_params({name: 1.0}, tiny_rig))
    assert sign * moved[side, axis] > 0.003
    assert moved[1 - side].abs().max() < 1e-6


def test_the_jaw_opens(tiny_rig):
    half, full = (arkit_params({"jawOpen": s}, tiny_rig) for s in (0.5, 1.0))
    teeth = tiny_rig.mask("teeth_lower")
    drop = [
        (tiny_rig.v_template[teeth] - tiny_rig(params)[0, teeth])[:, 1].mean()
        for params in (half, full)
    ]
    assert 0.005 < drop[0] < drop[1] < 0.05


def test_columns_make_frames(tiny_rig):
    columns = {"jawOpen": torch.tensor([0.0, 1.0, 0.5]), "mouthSmileLeft": 0.3}
    params = arkit_params(columns, tiny_rig, betas=torch.ones(tiny_rig.num_betas))
    assert len(params) == 3
    assert params.jaw_pose[:, 0].tolist() == pytest.approx([0, 0.35, 0.175])
    assert (params.expression.sum(1) - 0.3).abs().max() < 1e-6
    assert (params.betas == 1).all()


def test_what_the_rig_does_not_have_is_said(tiny_rig, caplog):
    without = torch.eye(tiny_rig.num_expressions, len(ARKIT_NAMES))
    arkit_params({"tongueOut": 0.5}, tiny_rig, expression_map=without)
    assert "no expression for tongueOut" in caplog.text


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ({"smile": 1.0}, "must have ARKit's names, got smile"),
        ({"jawOpen": float("nan")}, "`jawOpen` must be finite"),
        ({"jawOpen": torch.zeros(2), "jawLeft": torch.zeros(3)}, "one value per frame"),
        ({"jawOpen": torch.zeros(2, 2)}, "one value per frame"),
        ({"jawOpen": torch.zeros(0)}, "one value per frame"),
    ],
)
def test_bad_coefficients_are_refused(coefficients, message, tiny_rig):
    with pytest.raises(ValueError, match=message):
        arkit_params(coefficients, tiny_rig)


# A rig without names ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed_rig(tiny_rig):
    """The same head with nameless expressions: random mixtures of the named ones."""
    rig = type(tiny_rig)("low")
    g = torch.Generator().manual_seed(0)
    mixture = torch.linalg.qr(torch.randn(rig.num_expressions, rig.num_expressions, generator=g))[0]
    rig.exprdirs.copy_(torch.einsum("vce,ef->vcf", tiny_rig.exprdirs, mixture))
    rig.expression_names = tuple(f"expression_{i:03d}" for i in range(rig.num_expressions))
    return rig


def test_nameless_rigs_need_a_map(mixed_rig):
    with pytest.raises(ValueError, match="`expression_map` must be given"):
        arkit_params({"mouthPucker": 1.0}, mixed_rig)


def test_a_map_of_another_rig_is_refused(mixed_rig):
    with pytest.raises(ValueError, match=r"`expression_map` must have shape \(45, 52\)"):
        arkit_params({"mouthPucker": 1.0}, mixed_rig, expression_map=torch.zeros(52, 45))


@pytest.mark.parametrize("name", ["mouthPucker", "mouthSmileLeft", "browInnerUp", "eyeBlinkRight"])
def test_a_fitted_map_moves_the_landmarks_alike(name, mixed_rig, tiny_rig):
    expression_map = fit_expression_map(mixed_rig, tiny_rig, ridge=1e-6)
    wanted = tiny_rig(arkit_params({name: 1.0}, tiny_rig))
    made = mixed_rig(arkit_params({name: 1.0}, mixed_rig, expression_map=expression_map))
    still = tiny_rig.landmarks(tiny_rig.v_template[None])
    error = (mixed_rig.landmarks(made) - tiny_rig.landmarks(wanted)).norm()
    assert error < 0.05 * (tiny_rig.landmarks(wanted) - still).norm()


def test_a_map_takes_the_size_of_the_head_into_account(mixed_rig, tiny_rig):
    large = type(tiny_rig)("low")
    large.v_template.copy_(2 * mixed_rig.v_template)
    large.exprdirs.copy_(2 * mixed_rig.exprdirs)
    same = fit_expression_map(mixed_rig, tiny_rig)
    torch.testing.assert_close(fit_expression_map(large, tiny_rig), same, atol=1e-4, rtol=1e-3)


# Files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flame(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path)
    return FlameHeadRig.from_flame(path)


def vhap_arrays(frames=4, num_expressions=10, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "translation": rng.normal(size=(frames, 3)),
        "rotation": rng.normal(size=(frames, 3)),
        "neck_pose": rng.normal(size=(frames, 3)),
        "jaw_pose": rng.normal(size=(frames, 3)),
        "eyes_pose": rng.normal(size=(frames, 6)),
        "shape": rng.normal(size=300),
        "expr": rng.normal(size=(frames, num_expressions)),
        "static_offset": np.zeros((1, 5143, 3)),
    }
    return {**arrays, **changes}


def test_flame_parameters_in_vhaps_names(flame, tmp_path):
    arrays = vhap_arrays()
    np.savez(tmp_path / "motion.npz", **arrays)
    params = read_motion(tmp_path / "motion.npz", flame)
    assert len(params) == 4
    names = {
        "rotation": "global_orient",
        "neck_pose": "neck_pose",
        "jaw_pose": "jaw_pose",
        "translation": "transl",
        "expr": "expression",
    }
    for name, ours in names.items():
        np.testing.assert_allclose(getattr(params, ours), arrays[name], rtol=1e-6)
    np.testing.assert_allclose(params.leye_pose, arrays["eyes_pose"][:, :3], rtol=1e-6)
    np.testing.assert_allclose(params.reye_pose, arrays["eyes_pose"][:, 3:], rtol=1e-6)
    np.testing.assert_allclose(params.betas[3], arrays["shape"], rtol=1e-6)
    assert torch.isfinite(flame(params[:2])).all()


def test_fewer_coefficients_are_the_first_ones(flame, tmp_path):
    arrays = vhap_arrays(num_expressions=6)
    np.savez(tmp_path / "motion.npz", **arrays)
    params = read_motion(tmp_path / "motion.npz", flame)
    np.testing.assert_allclose(params.expression[:, :6], arrays["expr"], rtol=1e-6)
    assert params.expression[:, 6:].abs().max() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expr": np.zeros((4, 100))}, "`expr` .* of at most 10 values.*another rig"),
        ({"jaw_pose": np.zeros((3, 3))}, "`jaw_pose` .* must have 4 rows of 3 values"),
        ({"jaw_pose": np.zeros((4, 6))}, "`jaw_pose` .* must have 4 rows of 3 values"),
        ({"neck_pose": np.full((4, 3), np.nan)}, "`neck_pose` .* finite"),
        ({"neck_pose": np.full((4, 3), 1e300)}, "`neck_pose` .* finite"),
        ({"expr": np.zeros((0, 10))}, "at least one frame"),
        ({"expr": np.full((4, 10), "a")}, "finite numbers"),
    ],
)
def test_motions_of_another_rig_are_refused(changes, message, flame, tmp_path):
    np.savez(tmp_path / "motion.npz", **vhap_arrays(**changes))
    with pytest.raises(ValueError, match=message):
        read_motion(tmp_path / "motion.npz", flame)


@pytest.mark.parametrize("folder", ["flame_param", "motion/flame_param"])
def test_a_folder_of_one_frame_each(folder, flame, tmp_path):
    arrays = vhap_arrays(frames=3)
    (tmp_path / folder).mkdir(parents=True)
    whole = ("shape", "static_offset")
    for number, i in enumerate((0, 1, 7)):
        one = {k: v if k in whole else v[number : number + 1] for k, v in arrays.items()}
        np.savez(tmp_path / folder / f"{i:05d}.npz", **one)
    for place in {tmp_path / folder, (tmp_path / folder).parent}:
        params = read_motion(place, flame)
        np.testing.assert_allclose(params.jaw_pose, arrays["jaw_pose"], rtol=1e-6)


def test_folders_without_motion_say_what_they_hold(flame, tiny_rig, tmp_path):
    for rig in (flame, tiny_rig):
        with pytest.raises(FileNotFoundError, match=r"folder of .frame or .npz files, and .* none"):
            read_motion(tmp_path, rig)
    (tmp_path / "a.csv").write_text("jawOpen\n0.5\n")
    with pytest.raises(FileNotFoundError, match=r"one can be named: a\.csv"):
        read_motion(tmp_path, tiny_rig)


def test_flame_parameters_at_the_rate_of_a_clip(flame, tmp_path, caplog):
    path = tmp_path / "motion.npz"
    turns = np.array([[0.0, 0, 0], [0, 0.4, 0], [0, 0.8, 0], [0, 1.2, 0]])
    np.savez(path, **vhap_arrays(neck_pose=turns, expr=turns @ np.ones((3, 10))))
    params = read_motion(path, flame, take_fps=30, fps=60)
    assert params.neck_pose[:, 1].tolist() == pytest.approx([0.2 * i for i in range(7)], abs=1e-4)
    assert params.expression[:, 0].tolist() == pytest.approx([0.2 * i for i in range(7)])
    assert not caplog.records
    assert len(read_motion(path, flame, fps=60)) == 4
    assert "says nothing of its times; its 4 frames" in caplog.text
    around = np.array([[0, 3.0, 0], [0, -3.08, 0]])  # the short way, past half a turn
    np.savez(path, **vhap_arrays(frames=2, rotation=around))
    middle = read_motion(path, flame, take_fps=30, fps=60).global_orient[1, 1].abs()
    assert float(middle) == pytest.approx(np.pi - 0.04, abs=1e-3)
    still = read_motion(path, flame, head_rotation=False)
    assert still.neck_pose.abs().max() == still.global_orient.abs().max() == 0
    with pytest.raises(ValueError, match="`mirror` must be off"):
        read_motion(path, flame, mirror=True)


def test_flames_coefficients_do_not_drive_named_expressions(tiny_rig, tmp_path):
    np.savez(tmp_path / "motion.npz", **vhap_arrays())
    with pytest.raises(ValueError, match="mean nothing to the named expressions"):
        read_motion(tmp_path / "motion.npz", tiny_rig)


def test_offsets_of_vertices_are_left_out_with_a_word(flame, tmp_path, caplog):
    np.savez(tmp_path / "motion.npz", **vhap_arrays(static_offset=np.ones((1, 5143, 3))))
    read_motion(tmp_path / "motion.npz", flame)
    assert "offsets of single vertices" in caplog.text


def write_csv(path, header, *rows):
    path.write_text(
        "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]) + "\n"
    )


def test_live_link_face(tiny_rig, tmp_path, caplog):
    names = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
    header = ["Timecode", "BlendShapeCount", *names, "HeadYaw", "HeadPitch", "HeadRoll"]
    values = np.linspace(0, 1, 3)[:, None] * np.linspace(0.1, 0.9, 52)
    rows = [[f"00:00:00:{i:02}.000", 61, *row, 0.1, 0.2, 0.3] for i, row in enumerate(values)]
    write_csv(tmp_path / "take.csv", header, *rows)
    params = read_motion(tmp_path / "take.csv", tiny_rig, head_rotation=False)
    expected = {name: torch.tensor(values[:, i]) for i, name in enumerate(ARKIT_NAMES)}
    same = arkit_params(expected, tiny_rig)
    assert torch.equal(params.expression, same.expression)
    assert torch.equal(params.poses, same.poses)
    assert "HeadYaw, HeadPitch, HeadRoll (turns of the head)" in caplog.text


def test_mediapipe_columns(tiny_rig, tmp_path):
    write_csv(
        tmp_path / "take.csv", ["frame", "_neutral", "jawOpen"], [0, 0.5, " 0.0"], [1, 0.5, 1.0]
    )
    params = read_motion(tmp_path / "take.csv", tiny_rig)
    assert params.jaw_pose[:, 0].tolist() == pytest.approx([0, 0.35])


def test_files_that_are_no_motion_are_refused(tiny_rig, tmp_path):
    with pytest.raises(FileNotFoundError, match="none at"):
        read_motion(tmp_path / "none.csv", tiny_rig)
    cases = {
        "a.csv": (b"", "an empty file"),
        "b.csv": (b"x,y\n1,2\n", "got x, y"),
        "c.csv": (b"jawOpen\nwide\n", "`jawOpen` in line 2 of .* got 'wide'"),
        "d.csv": (b"jawOpen,jawLeft\n0.5\n", "`jawLeft` in line 2 .* got ''"),
        "e.csv": (b"\xff\xfe\x00", "cannot be read"),
        "g.bvh": (b"", r"must end in .csv, .json, .npz or .frame"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_motion(tmp_path / name, tiny_rig)


def test_archives_that_are_no_motion_are_refused(flame, tmp_path):
    path = tmp_path / "motion.npz"
    np.savez(path, **vhap_arrays())
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole.replace(b"'<f8'", b"'<z9'")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"motion.npz cannot be read"):
            read_motion(path, flame)
    np.savez(path, expr=np.zeros((2, 10)))
    with pytest.raises(ValueError, match="it lacks rotation, neck_pose, jaw_pose, translation"):
        read_motion(path, flame)

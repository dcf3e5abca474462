# SPDX-License-Identifier: Apache-2.0
"""FLAME from the user's own file: reading, teeth, forward pass, references."""

import json
import os
from collections import Counter

import numpy as np
import pytest
import torch
from fake_flame import NUM_VERTICES, dump, fake_arrays, write_flame
from safetensors import safe_open

from pointillist_hf import (
    Avatar,
    AvatarConditioner,
    AvatarPipeline,
    FlameHeadRig,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PointTokenizer,
)
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians, RigParams
from pointillist_hf.rigs.binding import animate_gaussians, bind_points
from pointillist_hf.rigs.flame.model_file import convert_flame, read_flame
from pointillist_hf.rigs.flame.teeth import LOWER_LIP, UPPER_LIP, tooth_faces
from pointillist_hf.rigs.skinning import skin_points
from pointillist_hf.training import recipes


@pytest.fixture(scope="module")
def arrays():
    return fake_arrays()


@pytest.fixture(scope="module")
def model_file(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path, arrays)
    return path


@pytest.fixture(scope="module")
def rig(model_file):
    return FlameHeadRig.from_flame(model_file)


def random_params(rig, frames=2, seed=0, scale=0.4):
    g = torch.Generator().manual_seed(seed)

    def draw(size):
        return scale * torch.randn(frames, size, generator=g)

    return RigParams(
        betas=draw(rig.num_betas)[:1].expand(frames, -1),
        expression=draw(rig.num_expressions),
        global_orient=draw(3),
        neck_pose=draw(3),
        jaw_pose=draw(3),
        leye_pose=draw(3),
        reye_pose=draw(3),
        transl=draw(3),
    )


def rotation(axis_angle):
    """Rodrigues' formula for one vector, float64."""
    angle = np.linalg.norm(axis_angle)
    x, y, z = axis_angle / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def flame_forward(arrays, params, t):
    """The published equations, one vertex and one joint at a time where it matters."""
    coefficients = np.concatenate([params.betas[t].numpy(), params.expression[t].numpy()])
    shaped = arrays["v_template"] + arrays["shapedirs"] @ coefficients.astype(np.float64)
    joints = arrays["J_regressor"] @ shaped
    turns = [rotation(pose.numpy().astype(np.float64)) for pose in params.poses[t]]
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + arrays["posedirs"] @ feature
    chain = [np.eye(4)]
    chain[0][:3, :3], chain[0][:3, 3] = turns[0], joints[0]
    for joint, parent in enumerate((0, 1, 1, 1), start=1):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turns[joint], joints[joint] - joints[parent]
        chain.append(chain[parent] @ local)
    result = np.zeros_like(posed)
    for v in range(len(posed)):
        for joint in range(5):
            turned = chain[joint][:3, :3] @ (posed[v] - joints[joint]) + chain[joint][:3, 3]
            result[v] += arrays["weights"][v, joint] * turned
    return result + params.transl[t].numpy()


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("chumpy", [None, "ch", "select"])
def test_every_kind_of_pickle_gives_the_same_arrays(protocol, chumpy, arrays, tmp_path):
    path = tmp_path / "generic_model.pkl"
    write_flame(path, arrays, protocol=protocol, chumpy=chumpy)
    flame = read_flame(path)
    assert flame.version == "2020"
    np.testing.assert_array_equal(flame.v_template, arrays["v_template"].astype(np.float32))
    np.testing.assert_array_equal(
        flame.shapedirs, arrays["shapedirs"][..., :300].astype(np.float32)
    )
    np.testing.assert_array_equal(flame.exprdirs, arrays["shapedirs"][..., 300:].astype(np.float32))
    np.testing.assert_array_equal(flame.posedirs, arrays["posedirs"].astype(np.float32))
    np.testing.assert_array_equal(flame.J_regressor, arrays["J_regressor"].astype(np.float32))
    np.testing.assert_array_equal(flame.lbs_weights, arrays["weights"].astype(np.float32))
    np.testing.assert_array_equal(flame.faces, arrays["f"])


def test_conversions_keep_numbers_version_and_origin(model_file, arrays, tmp_path):
    original = read_flame(model_file)
    convert_flame(model_file, tmp_path / "mine.safetensors")
    converted = read_flame(tmp_path / "mine.safetensors")
    names = (
        "v_template",
        "faces",
        "shapedirs",
        "exprdirs",
        "posedirs",
        "J_regressor",
        "lbs_weights",
    )
    for name in names:
        np.testing.assert_array_equal(getattr(converted, name), getattr(original, name))
    assert (converted.version, converted.sha256) == (original.version, original.sha256)
    np.savez(tmp_path / "flame2023_Open.npz", **arrays)
    plain = read_flame(tmp_path / "flame2023_Open.npz")
    assert plain.version == "2023_open"
    np.testing.assert_array_equal(plain.posedirs, original.posedirs)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "flame2023_Open.npz",
        "mine.safetensors",
    ]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("generic_model.pkl", "2020"),
        ("male_model.pkl", "2020"),
        ("flame2023.pkl", "2023"),
        ("flame2023_no_jaw.pkl", "2023_no_jaw"),
        ("flame2023_Open.pkl", "2023_open"),
    ],
)
def test_official_names_say_the_version(name, version, model_file, tmp_path):
    os.link(model_file, tmp_path / name)
    assert read_flame(tmp_path / name).version == version


def test_other_names_need_the_version(model_file, tmp_path):
    os.link(model_file, tmp_path / "mine.pkl")
    with pytest.raises(ValueError, match=r"`version` must be one of 2020, .* got None"):
        read_flame(tmp_path / "mine.pkl")
    with pytest.raises(ValueError, match="got '2019'"):
        read_flame(tmp_path / "mine.pkl", version="2019")
    assert read_flame(tmp_path / "mine.pkl", version="2020").version == "2020"
    convert_flame(model_file, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match="made from FLAME 2023"):
        read_flame(tmp_path / "mine.safetensors", version="2020")


CHANGES = {
    "v_template": (lambda a: a[:-1], r"`v_template` .* must have shape \(5023, 3\), got"),
    "f": (lambda a: a + NUM_VERTICES, "`f` .* names vertices that are not there"),
    "shapedirs": (lambda a: a[..., :300], "`shapedirs` .* 300 identity directions"),
    "posedirs": (lambda a: a + 1e300, "`posedirs` .* must hold finite numbers"),
    "J_regressor": (lambda a: a[:4], r"`J_regressor` .* must have shape \(5, 5023\)"),
    "weights": (lambda a: 2 * a, "`weights` .* sum to one"),
    "kintree_table": (lambda a: a[:, ::-1], "`kintree_table` .* is not FLAME's"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arrays_that_are_not_flame_are_refused(name, arrays, tmp_path):
    change, message = CHANGES[name]
    changed = {**arrays, name: change(arrays[name])}
    write_flame(tmp_path / "flame2023.pkl", changed)
    with pytest.raises(ValueError, match=message):
        read_flame(tmp_path / "flame2023.pkl")
    del changed[name]
    np.savez(tmp_path / "flame2023.npz", **changed)
    with pytest.raises(ValueError, match=f"must hold `{name}`"):
        read_flame(tmp_path / "flame2023.npz")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at .*flame.is.tue.mpg.de"):
        read_flame(tmp_path / "flame2023.pkl")
    for name, content in (
        ("flame2023.npz", b"PK nonsense"),
        ("flame2023.safetensors", b"nonsense nonsense"),
        ("flame2023.pkl", b"nonsense"),
        ("flame2023.pkl", dump([1, 2])),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_flame(tmp_path / name)
    (tmp_path / "flame2023.obj").touch()
    with pytest.raises(ValueError, match=r"must end in one of .pkl, .npz, .safetensors"):
        read_flame(tmp_path / "flame2023.obj")
    np.savez(tmp_path / "flame2023.npz", v_template=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        read_flame(tmp_path / "flame2023.npz")


# The forward pass ---------------------------------------------------------------------------------


def test_the_forward_pass_is_that_of_the_published_equations(rig, arrays):
    params = random_params(rig)
    vertices = rig(params)
    assert vertices.shape == (2, 5143, 3)
    for t in range(2):
        expected = flame_forward(arrays, params, t)
        assert np.abs(vertices[t, :NUM_VERTICES].numpy() - expected).max() < 2e-6
    exact = FlameHeadRig.double(rig)(random_params(rig).to(torch.float64))
    rig.float()
    # The arrays themselves are stored in single precision.
    assert np.abs(exact[0, :NUM_VERTICES].numpy() - flame_forward(arrays, params, 0)).max() < 1e-6


@pytest.mark.parametrize("chumpy", [None, "ch", "select"])
def test_another_implementation_of_flame_agrees(chumpy, arrays, tmp_path):
    # pip install body-models; not among the extras, as a package it needs states no licence.
    other = pytest.importorskip("body_models.flame.numpy", reason="needs body-models")
    path = tmp_path / "flame2023.pkl"
    write_flame(path, arrays, chumpy=chumpy)
    rig = FlameHeadRig.from_flame(path)
    params = random_params(rig)
    expected = other.FLAME(model_path=path).forward_vertices(
        params.poses[:, 1:].numpy(),
        head_rotation=params.global_orient.numpy(),
        shape=params.betas.numpy(),
        expression=params.expression.numpy(),
        global_translation=params.transl.numpy(),
    )
    assert np.abs(rig(params)[:, :NUM_VERTICES].numpy() - expected).max() < 2e-6


def test_zero_pose_is_the_shaped_template(rig, arrays):
    params = rig.neutral(betas=random_params(rig).betas[:1])
    expected = rig.canonical_vertices(params.betas)
    torch.testing.assert_close(rig(params), expected, atol=1e-6, rtol=0)


def test_points_on_vertices_move_like_the_vertices(rig):
    params = random_params(rig)
    rest = rig.canonical_vertices(params.betas[:1])[0]
    faces = torch.randint(rig.num_faces, (200,), generator=torch.Generator().manual_seed(1))
    corners = rig.faces[faces, 1]
    bound = bind_points(CanonicalPoints(rest[corners], faces), rig, rest)
    moved, _ = skin_points(bound, params.expression, rig.joint_motion(params))
    torch.testing.assert_close(moved, rig(params)[:, corners], atol=2e-4, rtol=0)


# Teeth --------------------------------------------------------------------------------------------


def test_teeth_complete_the_vocabulary_of_the_paper(rig, model_file):
    assert rig.num_faces == 10_144
    assert len(FlameHeadRig.from_flame(model_file, add_teeth=False).faces) == 9_976
    new = rig.faces[9_976:]
    assert new.min() == NUM_VERTICES
    assert new.max() == 5_142
    assert len(torch.unique(new.sort(1).values, dim=0)) == 168
    # Corrected in GaussianAvatars in May 2024: face 133 of the teeth ends in vertex 115.
    assert (tooth_faces()[133] - NUM_VERTICES).tolist() == [101, 116, 115]
    assert PointTokenizer(num_bins=1024, num_faces=rig.num_faces).bos_token_id == 11_168


def test_teeth_lie_behind_the_lips(rig, arrays):
    teeth = rig.v_template[NUM_VERTICES:].double().numpy().reshape(8, 15, 3)
    upper, lower = (arrays["v_template"][list(ring)] for ring in (UPPER_LIP, LOWER_LIP))
    gap = np.linalg.norm(upper - lower, axis=1).mean()
    middle = (upper + lower) / 2
    upper_root, lower_root, upper_edge, lower_edge = teeth[:4]
    np.testing.assert_allclose(upper_edge[:, 1], middle[:, 1].mean() + 0.1 * gap, atol=1e-6)
    np.testing.assert_allclose(upper_edge[:, 2], middle[:, 2] - 1.5 * gap, atol=1e-6)
    np.testing.assert_allclose(lower_edge[:, 2], middle[:, 2] - 1.9 * gap, atol=1e-6)
    np.testing.assert_allclose(upper_root - upper_edge, [[0, 2 * gap, 0]] * 15, atol=1e-6)
    np.testing.assert_allclose(lower_edge - lower_root, [[0, 2 * gap, 0]] * 15, atol=1e-6)
    np.testing.assert_allclose(
        teeth[4:] - teeth[[0, 2, 1, 3]], [[[0, 0, -gap]] * 15] * 4, atol=1e-6
    )


def test_strips_of_teeth_are_closed_sheets():
    """Inside a strip every edge belongs to two triangles, which run through it in both senses."""
    for strip in tooth_faces().reshape(6, 28, 3):
        edges = Counter()
        for a, b, c in strip:
            edges.update([(a, b), (b, c), (c, a)])
        assert max(edges.values()) == 1
        inner = sum((b, a) in edges for a, b in edges)
        assert inner == 2 * 27  # 28 triangles in a row share 27 edges


def test_the_lower_teeth_follow_the_jaw_alone(rig):
    rest = rig(rig.neutral())[0, NUM_VERTICES:]
    params = random_params(rig, frames=1, seed=3)
    moved = rig.neutral()
    fields = {name: getattr(moved, name) for name in moved.__dataclass_fields__}
    fields |= {"jaw_pose": params.jaw_pose}
    opened = rig(RigParams(**fields))[0, NUM_VERTICES:]
    is_upper = torch.tensor([True, False, True, False, True, True, False, False])
    is_upper = is_upper.repeat_interleave(15)
    torch.testing.assert_close(opened[is_upper], rest[is_upper], atol=1e-6, rtol=0)
    joint = (rig.J_regressor @ rig.v_template)[2]
    turn = torch.tensor(rotation(params.jaw_pose[0].double().numpy()), dtype=torch.float32)
    expected = (rest[~is_upper] - joint) @ turn.T + joint
    torch.testing.assert_close(opened[~is_upper], expected, atol=1e-5, rtol=0)
    # Expressions leave them where they are, but for what they do to the joints.
    fields = {**fields, "jaw_pose": moved.jaw_pose, "expression": params.expression}
    smiled = rig(RigParams(**fields))[0, NUM_VERTICES:]
    torch.testing.assert_close(smiled, rest, atol=1e-6, rtol=0)


# References ---------------------------------------------------------------------------------------


def test_a_saved_rig_is_a_reference(rig, model_file, tmp_path):
    rig.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["version"] == "2023"
    assert len(config["sha256"]) == 64
    loaded = FlameHeadRig.from_pretrained(tmp_path)
    for name, array in rig.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], array)
    with pytest.raises(ValueError, match="`push_to_hub` must not be set"):
        rig.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    assert not (tmp_path / "pushed").exists()


def test_a_moved_file_is_found_again(model_file, arrays, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    os.link(model_file, tmp_path / "old" / "flame2023.pkl")
    FlameHeadRig.from_flame(tmp_path / "old" / "flame2023.pkl").save_pretrained(tmp_path / "rig")
    (tmp_path / "old" / "flame2023.pkl").rename(tmp_path / "new" / "renamed.pkl")
    with pytest.raises(FileNotFoundError, match=r"looked at: .*old/flame2023.pkl. Set FLAME_MODEL"):
        FlameHeadRig.from_pretrained(tmp_path / "rig")
    monkeypatch.setenv("FLAME_MODEL", str(tmp_path / "new"))
    assert FlameHeadRig.from_pretrained(tmp_path / "rig").num_faces == 10_144
    monkeypatch.delenv("FLAME_MODEL")
    given = tmp_path / "new" / "renamed.pkl"
    assert FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=given).num_faces == 10_144
    convert_flame(given, tmp_path / "new" / "mine.safetensors", version="2023")
    converted = tmp_path / "new" / "mine.safetensors"
    assert FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=converted).num_faces == 10_144
    given.unlink()
    for place in (converted, tmp_path / "new"):
        monkeypatch.setenv("FLAME_MODEL", str(place))
        assert FlameHeadRig.from_pretrained(tmp_path / "rig").num_faces == 10_144


def test_references_hold_from_any_folder(model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(model_file.parent)
    FlameHeadRig.from_flame(model_file.name).save_pretrained(tmp_path / "rig")
    monkeypatch.chdir(tmp_path)
    assert FlameHeadRig.from_pretrained("rig").num_faces == 10_144
    (tmp_path / "rig" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no reference to FLAME; it lacks"):
        FlameHeadRig.from_pretrained("rig")


def test_another_file_is_not_taken_for_the_saved_one(rig, tmp_path):
    rig.save_pretrained(tmp_path / "rig")
    write_flame(tmp_path / "flame2023.pkl", fake_arrays(seed=1))
    with pytest.raises(ValueError, match="this is another file than the one the rig was saved"):
        FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=tmp_path / "flame2023.pkl")


def build_avatar(rig):
    g = torch.Generator().manual_seed(0)
    bindings = torch.randint(rig.num_faces, (30,), generator=g)
    means = rig.v_template[rig.faces[bindings]].mean(1)
    gaussians = Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(30, 1),
        scales=torch.full((30, 3), 0.01),
        opacities=torch.full((30,), 0.8),
        colors=torch.rand(30, 3, generator=g),
    )
    return Avatar(gaussians, bindings, rig, torch.randn(rig.num_betas, generator=g))


def test_an_avatar_on_flame_leaves_flame_where_it_is(rig, tmp_path):
    avatar = build_avatar(rig)
    avatar.save_pretrained(tmp_path / "me")
    names = {p.relative_to(tmp_path / "me").as_posix() for p in (tmp_path / "me").rglob("*")}
    assert names == {"avatar.json", "avatar.safetensors", "rig", "rig/config.json"}
    with safe_open(tmp_path / "me" / "avatar.safetensors", framework="numpy") as file:
        assert max(file.get_tensor(key).size for key in file.keys()) < 1000  # noqa: SIM118
    loaded = Avatar.from_pretrained(tmp_path / "me")
    params = random_params(rig)
    for mode in ("lbs", "triangle"):
        first = avatar.animate(params, mode=mode).gaussians.means
        assert torch.equal(first, loaded.animate(params, mode=mode).gaussians.means)


@pytest.mark.parametrize("mode", ["lbs", "triangle"])
def test_a_rigid_turn_turns_the_gaussians(rig, mode):
    avatar = build_avatar(rig)
    turn = avatar.rig_params(global_orient=[0.3, -0.5, 0.2], transl=[0.1, 0.2, -0.1])
    still = animate_gaussians(
        avatar.gaussians, avatar.bindings, rig, avatar.rig_params(), mode=mode
    )
    moved = animate_gaussians(avatar.gaussians, avatar.bindings, rig, turn, mode=mode)
    R = torch.tensor(rotation(np.array([0.3, -0.5, 0.2])), dtype=torch.float32)
    root = (rig.J_regressor @ rig.canonical_vertices(avatar.betas[None])[0])[0]
    expected = (still.means[0] - root) @ R.T + root + torch.tensor([0.1, 0.2, -0.1])
    torch.testing.assert_close(moved.means[0], expected, atol=1e-5, rtol=0)


def test_a_pipeline_with_flame_is_saved_by_reference(rig, tmp_path):
    tokenizer = PointTokenizer(num_bins=32, num_faces=rig.num_faces)
    generator_config = recipes.build_generator_config("nano", tokenizer)
    pipe = AvatarPipeline(
        image_processor=recipes.build_image_processor("nano"),
        rig=rig,
        conditioner=AvatarConditioner(recipes.build_conditioner_config("nano", tokenizer)),
        tokenizer=tokenizer,
        point_generator=PointGeneratorForCausalLM(generator_config),
        gaussian_decoder=GaussianDecoder(
            recipes.build_decoder_config("nano", tokenizer, generator_config)
        ),
        max_points=3,
    )
    pipe.save_pretrained(tmp_path)
    assert [path.name for path in (tmp_path / "rig").iterdir()] == ["config.json"]
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded.rig.v_template, rig.v_template)


# Landmarks ----------------------------------------------------------------------------------------


def write_embedding(path, **changes):
    rng = np.random.default_rng(0)
    barycentric = rng.random((1, 70, 3))
    embedding = {
        "full_lmk_faces_idx": rng.integers(0, 9_976, (1, 70)),
        "full_lmk_bary_coords": barycentric / barycentric.sum(-1, keepdims=True),
        **changes,
    }
    np.save(path, np.array(embedding, dtype=object), allow_pickle=True)
    return embedding


def test_landmarks_come_from_their_own_file(rig, model_file, tmp_path):
    with pytest.raises(ValueError, match="`landmarks` must be given to `from_flame`"):
        rig.landmarks(rig(rig.neutral()))
    embedding = write_embedding(tmp_path / "landmarks.npy")
    marked = FlameHeadRig.from_flame(model_file, landmarks=tmp_path / "landmarks.npy")
    vertices = marked(random_params(marked))
    points = marked.landmarks(vertices)
    assert points.shape == (2, 68, 3)
    face = embedding["full_lmk_faces_idx"][0, 30]
    share = torch.tensor(embedding["full_lmk_bary_coords"][0, 30], dtype=torch.float32)
    expected = (share[:, None] * vertices[1, marked.faces[face]]).sum(0)
    torch.testing.assert_close(points[1, 30], expected, atol=1e-6, rtol=0)
    marked.save_pretrained(tmp_path / "rig")
    loaded = FlameHeadRig.from_pretrained(tmp_path / "rig")
    assert torch.equal(loaded.landmark_faces, marked.landmark_faces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full_lmk_faces_idx": np.full((1, 70), 10**6)}, "lie on no face"),
        ({"full_lmk_bary_coords": np.ones((1, 70, 3))}, "lie on no face"),
        ({"full_lmk_faces_idx": np.zeros((1, 51), int)}, "at least 68 landmarks"),
        ({"full_lmk_faces_idx": np.zeros((1, 70))}, "at least 68 landmarks"),
        ({"full_lmk_bary_coords": np.full((1, 70, 3), np.nan)}, "lie on no face"),
        ({"full_lmk_bary_coords": np.ones((70, 2))}, "at least 68 landmarks"),
    ],
)
def test_bad_landmarks_are_refused(changes, message, model_file, tmp_path):
    write_embedding(tmp_path / "landmarks.npy", **changes)
    with pytest.raises(ValueError, match=message):
        FlameHeadRig.from_flame(model_file, landmarks=tmp_path / "landmarks.npy")
    (tmp_path / "landmarks.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be an .npy file"):
        FlameHeadRig.from_flame(model_file, landmarks=tmp_path / "landmarks.npy")
    with pytest.raises(FileNotFoundError, match="none at"):
        FlameHeadRig.from_flame(model_file, landmarks=tmp_path / "none.npy")

# SPDX-License-Identifier: Apache-2.0
"""ARKit's coefficients on a FLAME that is a head: through its landmarks, to the millimetre."""

import shutil

import numpy as np
import pytest
import torch
from fake_flame import rotation
from made_up_flame import make_up_flame
from typer.testing import CliRunner

from pointillist_hf import Avatar, FlameHeadRig, ProceduralHeadRig
from pointillist_hf.cli import app
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.motion.arkit import JAW_OPEN_ANGLE, arkit_params
from pointillist_hf.motion.motion_files import read_motion

JAW, CHIN, LIP_CORNERS = 2, 8, (48, 54)
TAKE = "jawOpen,mouthSmileLeft,mouthSmileRight\n0,0,0\n0.5,0,0\n1,0,0\n0,1,1\n"


@pytest.fixture(scope="module")
def made_up():
    return make_up_flame()


@pytest.fixture(scope="module")
def folder(made_up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flame")
    np.savez(folder / "flame2023.npz", **made_up.arrays)
    np.save(folder / "landmarks.npy", np.array(made_up.landmarks, dtype=object))
    (folder / "take.csv").write_text(TAKE)
    return folder


@pytest.fixture(scope="module")
def flame(folder):
    return FlameHeadRig.from_flame(folder / "flame2023.npz", landmarks=folder / "landmarks.npy")


@pytest.fixture(scope="module")
def frames(flame, folder):
    betas = 0.5 * torch.randn(flame.num_betas, generator=torch.Generator().manual_seed(0))
    return read_motion(folder / "take.csv", flame, betas=betas)


def jaw_turn(made_up, betas, strength):
    """By how much the jaw moves the vertices of its own, in float64 from the file's arrays."""
    arrays = made_up.arrays
    rest = arrays["v_template"] + arrays["shapedirs"][..., :300] @ betas.double().numpy()
    joint = arrays["J_regressor"][JAW] @ rest
    turn = rotation(np.array([strength * JAW_OPEN_ANGLE, 0.0, 0.0]))
    features = np.zeros(36)
    features[9:18] = (turn - np.eye(3)).ravel()  # of the neck, the jaw and the eyes
    own = np.flatnonzero(arrays["weights"][:, JAW] > 0.999)
    corrected = rest[own] + arrays["posedirs"][own] @ features
    return own, joint, (corrected - joint) @ turn.T + joint - rest[own]


def test_the_jaw_drops_by_the_millimetres_of_its_angle(made_up, flame, frames):
    vertices = flame(frames)
    for frame, strength in ((1, 0.5), (2, 1.0)):
        own, joint, expected = jaw_turn(made_up, frames.betas[0], strength)
        assert len(own) > 100
        moved = (vertices[frame] - vertices[0])[own].double().numpy()
        assert np.abs(moved - expected).max() < 5e-5  # metres; others have a thousandth of them
    chin = (flame.landmarks(vertices)[:, CHIN] - flame.landmarks(vertices)[0, CHIN]).norm(dim=-1)
    at_rest = flame.landmarks(vertices)[0, CHIN].double().numpy()
    radius = np.linalg.norm((at_rest - joint)[1:])
    chord = 2 * np.sin(JAW_OPEN_ANGLE / 2) * radius
    assert 0.02 < chord < 0.05
    # Correctives move the chin a little on its way.
    assert float(chin[2]) == pytest.approx(chord, abs=3e-3)


def test_a_smile_is_that_of_our_own_head(made_up, flame, frames):
    vertices = flame(frames)
    moved = flame.landmarks(vertices)[3] - flame.landmarks(vertices)[0]
    own = ProceduralHeadRig()
    smile = arkit_params({"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}, own)
    wanted = (own.landmarks(own(smile)) - own.landmarks(own(own.neutral())))[0]
    assert wanted[list(LIP_CORNERS)].norm(dim=-1).min() > 4e-3
    torch.testing.assert_close(moved, wanted, atol=1.5e-3, rtol=0)
    assert frames.expression[3].abs().max() < 5


def test_a_rig_without_landmarks_says_what_it_needs(folder):
    bare = FlameHeadRig.from_flame(folder / "flame2023.npz")
    with pytest.raises(ValueError, match=r"drive FlameHeadRig by its 68 landmarks.*--landmarks"):
        read_motion(folder / "take.csv", bare)
    bare.load_landmarks(folder / "landmarks.npy")
    assert len(read_motion(folder / "take.csv", bare)) == 4


def test_landmarks_are_found_beside_a_model_that_has_moved(flame, folder, tmp_path):
    flame.save_pretrained(tmp_path / "rig")
    moved = shutil.copytree(folder, tmp_path / "flame")
    text = (tmp_path / "rig" / "config.json").read_text()
    (tmp_path / "rig" / "config.json").write_text(text.replace(str(folder), "/nowhere"))
    with pytest.raises(FileNotFoundError, match="was not found; looked at: /nowhere"):
        FlameHeadRig.from_pretrained(tmp_path / "rig")
    found = FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=moved / "flame2023.npz")
    assert torch.equal(found.landmark_faces, flame.landmark_faces)


def build_avatar(rig, count=200):
    g = torch.Generator().manual_seed(0)
    bindings = torch.randint(9_976, (count,), generator=g)
    return Avatar(
        Gaussians(
            means=rig.v_template[rig.faces[bindings]].mean(1),
            quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            scales=torch.full((count, 3), 0.01),
            opacities=torch.full((count,), 0.9),
            colors=torch.rand(count, 3, generator=g),
        ),
        bindings,
        rig,
        torch.zeros(rig.num_betas),
    )


def test_the_command_animates_an_avatar_on_flame(folder, tiny_avatar, tmp_path):
    bare = FlameHeadRig.from_flame(folder / "flame2023.npz")
    build_avatar(bare).save_pretrained(tmp_path / "me")
    take, clip = str(folder / "take.csv"), str(tmp_path / "clip.gif")
    command = ["animate", str(tmp_path / "me"), take, "-o", clip, "--size", "32"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code != 0
    assert "--landmarks" in refused.output
    marks = ["--landmarks", str(folder / "landmarks.npy")]
    done = CliRunner().invoke(app, [*command, *marks])
    assert done.exit_code == 0, done.output
    assert "4 frames" in done.output
    tiny_avatar.save_pretrained(tmp_path / "other")
    command[1] = str(tmp_path / "other")
    refused = CliRunner().invoke(app, [*command, *marks])
    assert "`landmarks` are for FLAME alone" in refused.output

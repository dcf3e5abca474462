# SPDX-License-Identifier: Apache-2.0
"""Coefficients that mean something together: lips and jaw, tongue and jaw, lids, funnel and pucker.

What the face then looks like is measured on the rig, for several people and both resolutions.
"""

from functools import lru_cache

import numpy as np
import pytest
import torch
from fake_flame import write_flame

from pointillist_hf import FlameHeadRig, ProceduralHeadRig
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.motion.arkit import JAW_OPEN_ANGLE, arkit_params, fit_expression_map
from pointillist_hf.motion.arkit_names import ARKIT_NAMES
from pointillist_hf.motion.lip_closure import JAW_KNOTS, LOWER_LIP, UPPER_LIP, fit_lip_closure
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rigs.procedural.template import build_template

MIDDLE = 1  # of the three pairs of points of the inner lips


@lru_cache
def head(resolution):
    return ProceduralHeadRig(resolution)


def person(rig, seed):
    return torch.tensor(sample_identity(seed, rig.shape_names).betas).float()


def lip_gaps(rig, coefficients, **options):
    """From the lower to the upper lip, millimetres. [T, 3, 3]"""
    points = rig.landmarks(rig(arkit_params(coefficients, rig, **options)))
    return 1000 * (points[:, list(UPPER_LIP)] - points[:, list(LOWER_LIP)])


@pytest.mark.parametrize(("resolution", "seeds"), [("full", (None, 6)), ("low", (None, 0, 6, 11))])
def test_lips_that_close_as_the_jaw_opens_meet(resolution, seeds):
    rig = head(resolution)
    strengths = torch.tensor([0.1, 0.3, 0.4, 0.5, 0.85, 1.0])
    for seed in seeds:
        options = {} if seed is None else {"betas": person(rig, seed)}
        open_jaw = lip_gaps(rig, {"jawOpen": strengths}, **options)
        shut = lip_gaps(rig, {"jawOpen": strengths, "mouthClose": strengths}, **options)
        assert shut[:, MIDDLE].norm(dim=-1).max() < 1
        assert shut[..., 1].abs().max() < 1  # beside the middle, a lip may lie in front
        assert (open_jaw[:, MIDDLE].norm(dim=-1) > 20 * strengths).all()


def test_half_of_the_closure_leaves_half_of_the_opening():
    rig = head("low")
    whole, half = (lip_gaps(rig, {"jawOpen": 0.6, "mouthClose": m})[0, MIDDLE, 1] for m in (0, 0.3))
    assert half == pytest.approx(float(whole) / 2, rel=0.05)


def test_lips_do_not_pass_each_other():
    rig = head("low")
    rest = lip_gaps(rig, {})
    for jaw, close in ((0.0, 1.0), (0.2, 0.9)):
        assert (lip_gaps(rig, {"jawOpen": jaw, "mouthClose": close}) - rest).abs().max() < 1.5


def test_frames_close_as_they_do_alone():
    rig = head("low")
    jaw, close = torch.tensor([0.0, 0.4, 1.2, 0.3]), torch.tensor([0.2, 0.4, 0.6, 0.0])
    together = arkit_params({"jawOpen": jaw, "mouthClose": close}, rig).expression
    closure = fit_lip_closure(rig, JAW_OPEN_ANGLE)
    assert closure.shape == (len(JAW_KNOTS), rig.num_expressions)
    for t in range(4):
        alone = {"jawOpen": float(jaw[t]), "mouthClose": float(close[t])}
        one = arkit_params(alone, rig, lip_closure=closure).expression[0]
        torch.testing.assert_close(together[t], one)


def test_lips_of_a_rig_without_names_meet():
    """The same head whose nameless expressions are mixtures of the named ones."""
    named, rig = head("low"), ProceduralHeadRig("low")
    count = rig.num_expressions
    mixture = torch.linalg.qr(torch.randn(count, count))[0]
    rig.exprdirs.copy_(torch.einsum("vce,ef->vcf", named.exprdirs, mixture))
    rig.expression_names = tuple(f"expression_{i:03d}" for i in range(count))
    options = {"expression_map": fit_expression_map(rig, named, ridge=1e-6)}
    for strength in (0.3, 0.5, 1.0):
        both = {"jawOpen": strength, "mouthClose": strength}
        assert lip_gaps(rig, both, **options)[0, MIDDLE].norm() < 1


def test_without_landmarks_the_map_closes_the_lips(tmp_path):
    write_flame(tmp_path / "flame2023.pkl")
    flame = FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")
    known = torch.randn(flame.num_expressions, 52)
    params = arkit_params({"jawOpen": 0.5, "mouthClose": 0.5}, flame, expression_map=known)
    column = ARKIT_NAMES.index("mouthClose")
    jaw = 0.5 * known[:, ARKIT_NAMES.index("jawOpen")]
    torch.testing.assert_close(params.expression[0], 0.5 * known[:, column] + jaw)


def visible(rig, coefficients, parts, target):
    """Number of pixels that show one of the parts."""
    template = build_template("full")
    vertices = rig(arkit_params(coefficients, rig))[0].double().numpy()
    camera = orbit_cameras([0.0], fov=6.0, target=target, width=360, height=200)
    viewmat, K = camera.viewmats[0].double().numpy(), camera.Ks[0].double().numpy()
    ids = rasterize_mesh(vertices, template.faces, viewmat, K, 360, 200).face_ids
    return int(np.isin(template.face_parts[ids[ids >= 0]], parts).sum())


EYES, MOUTH = (0.0, 0.025, 0.05), (0.0, -0.04, 0.07)


@pytest.mark.parametrize("other", [{}, {"eyeWide": 1.0}, {"eyeSquint": 1.0}, {"eyeLookUp": 1.0}])
def test_a_blink_shuts_the_eyes_whatever_else_is_said(other):
    rig = head("full")
    moves = {f"{n}{s}": v for n, v in ({"eyeBlink": 1.0} | other).items() for s in
             ("Left", "Right")}  # fmt: skip
    assert visible(rig, moves, ("eye_left", "eye_right"), EYES) == 0
    blink = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
    ids = [*range(36, 48)]
    lids, alone = (rig.landmarks(rig(arkit_params(m, rig)))[0, ids] for m in (moves, blink))
    if "eyeLookUp" not in other:
        assert (lids - alone).abs().max() < 1e-6


def test_a_squint_is_whole_on_an_open_eye_and_half_on_one_half_shut():
    rig = head("low")
    squint = rig.expression_names.index("eyeSquintLeft")
    for blink, expected in ((0.0, 0.8), (0.5, 0.4), (1.0, 0.0)):
        params = arkit_params({"eyeBlinkLeft": blink, "eyeSquintLeft": 0.8}, rig)
        assert float(params.expression[0, squint]) == pytest.approx(expected)


@pytest.mark.parametrize(("jaw", "expected"), [(0.0, 0.35), (0.1, 0.35), (0.6, 0.6)])
def test_a_tongue_opens_the_way_for_itself(jaw, expected):
    rig = head("full")
    moves = {"tongueOut": 1.0, "jawOpen": jaw, "mouthClose": jaw}
    params = arkit_params(moves, rig)
    assert params.jaw_pose[0, 0] == pytest.approx(expected * JAW_OPEN_ANGLE)
    posed, template = rig(params)[0], build_template("full")
    # Where it passes the lips, it lies below the upper one.
    upper, lower = (posed[template.mouth_edges[lip][10]] for lip in ("upper", "lower"))
    at_lips = posed[rig.mask("tongue")]
    at_lips = at_lips[(at_lips[:, 2] - upper[2]).abs() < 0.004]
    assert len(at_lips) > 3
    assert at_lips[:, 1].max() < upper[1] + 0.001
    assert upper[1] - lower[1] > 0.008
    assert visible(rig, moves, ("tongue",), MOUTH) > 200


def test_an_open_jaw_stays_as_it_is_with_a_tongue():
    params = arkit_params({"tongueOut": 1.0, "jawOpen": 0.7}, head("low"))
    assert params.jaw_pose[0, 0] == pytest.approx(0.7 * JAW_OPEN_ANGLE)


def test_a_tongue_that_the_rig_lacks_opens_nothing():
    rig = head("low")
    without = torch.eye(rig.num_expressions, 52)
    without[:, 51] = 0
    params = arkit_params({"tongueOut": 1.0}, rig, expression_map=without)
    assert params.jaw_pose.abs().max() == 0


@pytest.mark.parametrize("jaw", [0.0, 0.5])
def test_funnel_and_pucker_leave_a_mouth_between_them(jaw):
    rig = head("full")
    points = {
        name: rig.landmarks(rig(arkit_params(moves | {"jawOpen": jaw}, rig)))[0]
        for name, moves in {
            "rest": {},
            "pucker": {"mouthPucker": 1.0},
            "both": {"mouthPucker": 1.0, "mouthFunnel": 1.0},
        }.items()
    }
    width = {name: float(p[54, 0] - p[48, 0]) for name, p in points.items()}
    assert 0.72 * width["rest"] < width["both"] < width["pucker"] < width["rest"]

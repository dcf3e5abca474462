# SPDX-License-Identifier: Apache-2.0
"""The procedural head in motion: lids and lips of many people, the tongue, pose correctives."""

from functools import lru_cache

import numpy as np
import pytest
import torch

from pointillist_hf import ProceduralHeadRig
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.rotations import axis_angle_to_matrix
from pointillist_hf.geometry.structures import POSE_NAMES
from pointillist_hf.motion.arkit import ARKIT_NAMES, JAW_OPEN_ANGLE, arkit_params
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rigs.procedural.correctives import keep_volume
from pointillist_hf.rigs.procedural.sculpt import EYE_CENTRE, EYE_RADIUS
from pointillist_hf.rigs.procedural.template import build_template
from pointillist_hf.rigs.procedural.weights import JOINTS, build_skin_weights

NUM_PEOPLE = 100
EYES, MOUTH = (0.0, 0.025, 0.05), (0.0, -0.04, 0.07)
BLINK = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
INSIDE = ("teeth_upper", "teeth_lower", "tongue", "mouth")


@lru_cache
def head(resolution):
    return ProceduralHeadRig(resolution), build_template(resolution)


@lru_cache
def people(resolution):
    rig, _ = head(resolution)
    betas = [sample_identity(seed, rig.shape_names).betas for seed in range(NUM_PEOPLE)]
    return torch.tensor(np.array(betas)).float()


def seen(template, vertices, parts, *, target, azimuth=0.0):
    """Number of pixels that show one of the parts."""
    view = {"fov": 6.0, "target": target, "width": 360, "height": 200}
    camera = orbit_cameras([azimuth], **view)
    viewmat, K = camera.viewmats[0].double().numpy(), camera.Ks[0].double().numpy()
    ids = rasterize_mesh(vertices.double().numpy(), template.faces, viewmat, K, 360, 200).face_ids
    return int(np.isin(template.face_parts[ids[ids >= 0]], parts).sum())


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_blinking_hides_the_eyeballs_of_everybody(resolution):
    rig, template = head(resolution)
    shapes = rig.canonical_vertices(people(resolution))
    blinks = {side: rig.exprdirs @ rig.expression({f"eyeBlink{side}": 1.0})[0] for side in
              ("Left", "Right")}  # fmt: skip
    for shape in shapes:
        both = shape + blinks["Left"] + blinks["Right"]
        for azimuth in (-25, 0, 25):
            shut = seen(template, both, ("eye_left", "eye_right"), target=EYES, azimuth=azimuth)
            assert shut == 0
        for side, other in (("Left", "eye_right"), ("Right", "eye_left")):
            assert seen(template, shape + blinks[side], f"eye_{side.lower()}", target=EYES) == 0
            assert seen(template, shape + blinks[side], other, target=EYES) > 100


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_shut_lids_meet_along_the_slit(resolution):
    rig, template = head(resolution)
    shapes = rig.canonical_vertices(people(resolution))
    shut = shapes + rig.exprdirs @ rig.expression({"eyeBlink": 1.0})[0]
    for side in ("left", "right"):
        upper, lower = (template.eye_edges[f"{side}_{lid}"][1:-1] for lid in ("upper", "lower"))
        gaps = shut[:, upper, 1] - shut[:, lower, 1]
        assert gaps.max() < 0.0002


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_lids_stay_out_of_the_eyeball_while_they_move(resolution):
    rig, template = head(resolution)
    for strength in np.linspace(0, 1, 11):
        for gaze in ("eyeLookUp", "eyeLookDown", "eyeLookOut"):
            for blink in (0.0, 1.0):
                move = {f"{gaze}Left": strength, "eyeBlinkLeft": blink * strength}
                vertices = 100 * rig(arkit_params(move, rig))[0].double().numpy()
                edges = [d[f"left_{lid}"] for d in (template.eye_edges, template.lid_rims)
                         for lid in ("upper", "lower")]  # fmt: skip
                distance = np.linalg.norm(vertices[np.concatenate(edges)] - EYE_CENTRE, axis=-1)
                # Shutting an eye that looks up, the hidden rim grazes it by less than 0.2 mm.
                assert distance.min() > EYE_RADIUS - (0.02 if gaze == "eyeLookUp" else 0)


def test_lids_follow_the_gaze():
    rig, template = head("low")
    edge = template.eye_edges["left_upper"][2:-2]
    rest, down, up = (
        rig(arkit_params(move, rig))[0, edge, 1]
        for move in ({}, {"eyeLookDownLeft": 1.0}, {"eyeLookUpLeft": 1.0})
    )
    assert (rest - down).min() > 0.0005
    assert (up - rest).min() > 0.0005


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_lips_of_everybody_are_shut(resolution):
    rig, template = head(resolution)
    for shape in rig.canonical_vertices(people(resolution)):
        assert sum(seen(template, shape, INSIDE, target=MOUTH, azimuth=a) for a in (0, 40)) == 0


def test_an_open_jaw_parts_the_lips_by_its_arc():
    rig, template = head("full")
    posed = rig(arkit_params({"jawOpen": 1.0}, rig))[0].double().numpy()
    upper, lower = (template.mouth_edges[lip][10] for lip in ("upper", "lower"))
    radius = np.linalg.norm(template.vertices[lower] - JOINTS[2]) / 100
    arc = 2 * radius * np.sin(JAW_OPEN_ANGLE / 2)
    opening = np.linalg.norm(posed[upper] - posed[lower])
    assert 0.8 * arc < opening < 1.02 * arc
    assert 0.022 < opening < 0.032
    chin = rig.landmarks(torch.from_numpy(posed)[None].float())[0, 8]
    assert rig.landmarks(rig.v_template[None])[0, 8, 1] - chin[1] > 0.01


def test_the_tongue_comes_out_over_the_lower_teeth():
    rig, template = head("full")
    out = rig(arkit_params({"tongueOut": 1.0, "jawOpen": 0.7}, rig))[0]
    assert seen(template, out, ("tongue",), target=MOUTH) > 200
    lips = template.mouth_edges["lower"]
    assert out[template.tongue[0], 2] > out[lips, 2].max() + 0.005
    # Seen from the jaw, where both are at rest.
    field = rig.exprdirs[..., rig.expression_names.index("tongueOut")]
    tongue = (rig.v_template + field)[template.tongue]
    teeth = rig.v_template[rig.mask("teeth_lower")]
    over_teeth = tongue[(tongue[:, 2] > 0.055) & (tongue[:, 2] < 0.080)]
    assert over_teeth[:, 1].min() > teeth[:, 1].max()
    others = torch.ones(len(field), dtype=torch.bool)
    others[rig.mask("tongue")] = False
    assert not field[others].any()


# Pose correctives ---------------------------------------------------------------------------------


def random_poses(rig, frames=4, scale=0.3):
    g = torch.Generator().manual_seed(0)
    params = rig.neutral(frames)
    poses = {name: scale * torch.randn(frames, 3, generator=g) for name in POSE_NAMES}
    return type(params)(
        betas=params.betas, expression=params.expression, transl=params.transl, **poses
    )


def test_there_are_none_at_rest():
    rig, _ = head("low")
    assert rig.posedirs.abs().amax((0, 1)).gt(0).sum() > 20
    torch.testing.assert_close(rig(rig.neutral())[0], rig.v_template, atol=1e-6, rtol=0)


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_mirrored_poses_make_mirrored_heads(resolution):
    rig, _ = head(resolution)
    params = random_poses(rig)
    # A mirror keeps the axis across it and turns both others round.
    flipped = {name: getattr(params, name) * torch.tensor([1.0, -1, -1]) for name in POSE_NAMES}
    flipped["leye_pose"], flipped["reye_pose"] = flipped["reye_pose"], flipped["leye_pose"]
    mirrored = type(params)(
        betas=params.betas, expression=params.expression, transl=params.transl, **flipped
    )
    heads, others = rig(params).double(), rig(mirrored).double() * torch.tensor([-1.0, 1, 1])
    # Vertex order differs between the sides, so the sets of places are compared.
    for one, other in zip(heads, others, strict=True):
        distance = torch.cdist(one, other)
        assert distance.amin(0).max() < 1e-6
        assert distance.amin(1).max() < 1e-6


def test_volume_is_kept_to_second_order():
    _, template = head("low")
    weights = 1 - build_skin_weights(template)[:, 0]
    correctives = keep_volume(template.vertices, "neck", weights)
    offsets = template.vertices - JOINTS[1]
    turn = torch.tensor([0.12, -0.15, 0.05], dtype=torch.float64)
    rotation = axis_angle_to_matrix(turn).numpy()
    per_vertex = axis_angle_to_matrix(torch.from_numpy(weights)[:, None] * turn).numpy()
    exact = np.einsum("vij,vj->vi", per_vertex, offsets)
    moved = np.einsum("viab,ab->vi", correctives, rotation - np.eye(3))
    plain, corrected = (
        offsets + shift + weights[:, None] * ((offsets + shift) @ (rotation - np.eye(3)).T)
        for shift in (0 * moved, moved)
    )
    errors = [np.linalg.norm(exact - found, axis=-1).max() for found in (plain, corrected)]
    assert errors[0] > 0.02  # centimetres
    assert errors[1] < 0.15 * errors[0]


def test_a_bent_neck_keeps_its_girth():
    rig, _ = head("full")
    plain = ProceduralHeadRig("full")
    plain.posedirs.zero_()
    params = rig.neutral()
    params.neck_pose[:, 1] = 0.7
    # Halfway up the neck, where both bones pull alike.
    at = rig.lbs_weights[:, 0].sub(0.5).abs() < 0.15

    def girth(some_rig):
        ring = some_rig(params)[0, at]
        return ring[:, [0, 2]].sub(torch.tensor([0.0, -0.03])).norm(dim=-1).mean()

    still = rig.v_template[at][:, [0, 2]].sub(torch.tensor([0.0, -0.03])).norm(dim=-1).mean()
    assert abs(girth(rig) - still) < 0.4 * abs(girth(plain) - still)


def test_every_arkit_name_moves_this_rig():
    rig, _ = head("low")
    for name in ARKIT_NAMES:
        moved = (rig(arkit_params({name: 1.0}, rig))[0] - rig.v_template).norm(dim=-1)
        assert moved.max() > 0.0005, name

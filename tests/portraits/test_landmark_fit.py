# SPDX-License-Identifier: Apache-2.0
"""Landmarks drawn from a rig lead back to the rig."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_flame import fake_arrays, write_flame
from PIL import Image

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from pointillist_hf.portraits.head_state import HeadState, to_rig_params
from pointillist_hf.portraits.landmark_fit import fit_landmarks
from pointillist_hf.portraits.landmark_fit_config import LandmarkFitConfig
from pointillist_hf.portraits.landmark_residuals import (
    build_landmark_basis,
    find_outline,
    outline_term,
    point_terms,
    select_targets,
)
from pointillist_hf.portraits.landmark_solver import solve_arrow
from pointillist_hf.portraits.portrait_tracker import PortraitTracker
from pointillist_hf.portraits.posed_points import pose_jacobian, pose_points
from pointillist_hf.portraits.rig_basis import build_joint_basis, build_vertex_basis
from pointillist_hf.rigs.flame_rig import FlameHeadRig
from pointillist_hf.rigs.landmark_sources import find_landmark_places

ROOT = Path(__file__).parents[2]
TRACKER = ROOT / "model_cards" / "pointillist-tiny" / "portrait_tracker"
PHOTOGRAPH = ROOT / "examples" / "images" / "astronaut.jpg"
SIZE = {"width": 640, "height": 480}
TRUSTING = LandmarkFitConfig(
    shape_prior=1e-4,
    expression_prior=1e-4,
    jaw_pitch_prior=1e-4,
    distance_prior=1e-4,
    depth_weight=1.0,
    num_iterations=25,
)


@pytest.fixture(scope="module")
def flame_rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flame")
    write_flame(folder / "flame2023.pkl", fake_arrays())
    rng = np.random.default_rng(0)
    barycentric = rng.dirichlet(np.ones(3), (1, 70))
    embedding = {
        "full_lmk_faces_idx": rng.integers(0, 9_976, (1, 70)),
        "full_lmk_bary_coords": barycentric,
    }
    np.save(folder / "landmarks.npy", np.array(embedding, dtype=object), allow_pickle=True)
    return FlameHeadRig.from_flame(
        folder / "flame2023.pkl", add_teeth=False, landmarks=folder / "landmarks.npy"
    )


def random_state(frames, num_betas, num_expressions, seed=0, roll=0.0):
    """Lively heads, turned up to half a radian."""
    g = torch.Generator().manual_seed(seed)

    def draw(*size, low=-1.0, high=1.0):
        return low + (high - low) * torch.rand(*size, generator=g, dtype=torch.float64)

    turn = 0.4 * draw(frames, 3) + torch.tensor([0.0, 0.0, roll])
    return HeadState(
        betas=draw(frames, num_betas),
        expression=draw(frames, num_expressions, low=0.0, high=0.3),
        jaw=draw(frames, 2, low=0.0, high=0.1),
        gaze=0.2 * draw(frames, 2),
        rotations=axis_angle_to_matrix(turn),
        shift=0.05 * draw(frames, 3),
    )


def visible_only(state, places):
    """The state without coefficients that the fit holds at zero."""
    return replace(
        state,
        betas=state.betas * (places.shape_priors == 1),
        expression=state.expression * (places.expression_priors == 1),
    )


def take_landmarks(rig, params, places, *, focal=1500.0, middle=(320.0, 240.0)):
    """What a perfect detector sees of the rig, 1.2 metres away. [T, 468, 3], [T, 2, 5, 2]"""
    K = torch.tensor([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
    view = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    in_camera = rig(params) @ view + torch.tensor([0.0, 0.0, 1.2])
    pixels = in_camera @ K.T
    pixels = torch.cat([pixels[..., :2] / pixels[..., 2:], in_camera[..., 2:] * focal / 1.2], -1)
    points = torch.einsum("kj,tkjc->tkc", places.barycentric, pixels[:, rig.faces[places.faces]])
    landmarks = points.mean(1, keepdim=True).repeat(1, 468, 1)
    landmarks[:, places.ids] = points
    irises = pixels[:, places.pupils, None, :2].expand(-1, -1, 5, -1)
    return landmarks, irises


def exact(rig):
    """Places of landmarks whose detector makes no mistakes and sees no outline."""
    places = find_landmark_places(rig)
    return replace(places, offsets=0 * places.offsets, outline_ids=places.outline_ids[:0])


def turned_about(points, degrees, middle):
    """Pixels of a picture that is turned clockwise about its middle."""
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    middle = torch.tensor(middle)
    turn = torch.tensor([[c, -s], [s, c]])
    flat = (points[..., :2] - middle) @ turn.T + middle
    return torch.cat([flat, points[..., 2:]], dim=-1)


def differences(function, num_unknowns, epsilon=1e-5):
    """Derivatives of a function of steps [2, U] that treats frames alone. [2, ..., U]"""
    steps = epsilon * torch.eye(num_unknowns, dtype=torch.float64)[:, None].expand(-1, 2, -1)
    columns = [(function(step) - function(-step)) / (2 * epsilon) for step in steps]
    return torch.stack(columns, dim=-1)


def distance_of_shapes(points, expected):
    """Mean distance once both stand in one place and have one size, metres. [T, N, 3] twice"""
    points, expected = (p - p.mean(1, keepdim=True) for p in (points, expected))
    scale = (points * expected).sum((1, 2)) / points.square().sum((1, 2))
    return (scale[:, None, None] * points - expected).norm(dim=-1).mean()


def shape_error(rig, betas, expected):
    """Between the faces of identities, metres."""
    face = rig.mask("face")
    return distance_of_shapes(*(rig.canonical_vertices(b)[:, face] for b in (betas, expected)))


def test_landmarks_lead_back_to_the_head(tiny_rig):
    places = exact(tiny_rig)
    state = visible_only(random_state(3, tiny_rig.num_betas, tiny_rig.num_expressions), places)
    truth = to_rig_params(tiny_rig, state)
    landmarks, irises = take_landmarks(tiny_rig, truth, places)
    fit = fit_landmarks(tiny_rig, landmarks, irises, **SIZE, places=places, config=TRUSTING)
    assert fit.error.max() < 1e-3
    turn = axis_angle_to_matrix(fit.rig_params.global_orient)
    wrong = matrix_to_axis_angle(turn.mT @ state.rotations.float()).norm(dim=-1)
    assert wrong.max() < math.radians(0.5)
    assert (fit.rig_params.leye_pose - truth.leye_pose).abs().max() < 0.02
    # The focal length is a guess, so distance and size of the head are one, too.
    face = tiny_rig.mask("face")
    found, expected = (tiny_rig(params)[:, face] for params in (fit.rig_params, truth))
    assert distance_of_shapes(found, expected) < 5e-4


def test_the_head_lies_on_the_face_in_pixels_of_the_photograph(tiny_rig):
    places = exact(tiny_rig)
    state = visible_only(random_state(1, tiny_rig.num_betas, tiny_rig.num_expressions), places)
    # Far from the middle of a large picture.
    state = replace(state, shift=state.shift + torch.tensor([0.4, -0.4, 0.0]))
    truth = to_rig_params(tiny_rig, state)
    landmarks, irises = take_landmarks(tiny_rig, truth, places, focal=3000.0, middle=(2000, 1500))
    fit = fit_landmarks(
        tiny_rig, landmarks, irises, width=4000, height=3000, places=places, config=TRUSTING
    )
    assert (fit.cameras.width, fit.cameras.height) == (4000, 3000)
    pixels, _ = project_points(tiny_rig(fit.rig_params)[0], fit.cameras)
    corners = pixels[0, tiny_rig.faces[places.faces]]
    on_face = torch.einsum("kj,kjc->kc", places.barycentric, corners)
    # A point between vertices is skinned with their mean weights, to hundredths of a millimetre.
    torch.testing.assert_close(on_face, fit.projected[0], atol=0.3, rtol=0)
    unit = (landmarks[0, 33] - landmarks[0, 263]).norm()
    assert (on_face - landmarks[0, places.ids, :2]).norm(dim=-1).mean() < 0.01 * unit


def test_a_turned_photograph_turns_the_head_alone(tiny_rig):
    places = find_landmark_places(tiny_rig)
    state = random_state(1, tiny_rig.num_betas, tiny_rig.num_expressions)
    landmarks, irises = take_landmarks(tiny_rig, to_rig_params(tiny_rig, state), places)
    upright = fit_landmarks(tiny_rig, landmarks, irises, **SIZE).rig_params
    degrees = range(30, 360, 30)
    fits = fit_landmarks(
        tiny_rig,
        torch.cat([turned_about(landmarks, d, (320.0, 240.0)) for d in degrees]),
        torch.cat([turned_about(irises, d, (320.0, 240.0)) for d in degrees]),
        **SIZE,
    ).rig_params
    assert (fits.betas - upright.betas).abs().max() < 1e-3
    assert (fits.expression - upright.expression).abs().max() < 1e-3
    for i, d in enumerate(degrees):
        roll = axis_angle_to_matrix(torch.tensor([0.0, 0.0, -math.radians(d)]))
        expected = roll @ axis_angle_to_matrix(upright.global_orient[0])
        found = axis_angle_to_matrix(fits.global_orient[i])
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_frames_together_are_frames_alone(tiny_rig):
    places = find_landmark_places(tiny_rig)
    state = random_state(17, tiny_rig.num_betas, tiny_rig.num_expressions)
    landmarks, irises = take_landmarks(tiny_rig, to_rig_params(tiny_rig, state), places)
    together = fit_landmarks(tiny_rig, landmarks, irises, **SIZE)
    for t in (0, 16):
        alone = fit_landmarks(tiny_rig, landmarks[t : t + 1], irises[t : t + 1], **SIZE)
        for name, value in vars(alone.rig_params).items():
            of_all = getattr(together.rig_params, name)[t : t + 1]
            torch.testing.assert_close(of_all, value, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.cameras.Ks[t : t + 1], alone.cameras.Ks)


def test_one_person_in_many_frames(tiny_rig):
    places = exact(tiny_rig)
    state = visible_only(random_state(6, tiny_rig.num_betas, tiny_rig.num_expressions), places)
    state = replace(state, betas=state.betas[:1].expand(6, -1))
    truth = to_rig_params(tiny_rig, state)
    landmarks, irises = take_landmarks(tiny_rig, truth, places)
    landmarks[..., :2] += torch.randn(6, 468, 2)
    options = {**SIZE, "places": places, "config": replace(TRUSTING, shape_prior=0.02)}
    shared = fit_landmarks(tiny_rig, landmarks, irises, shared_shape=True, **options)
    single = fit_landmarks(tiny_rig, landmarks, irises, **options)
    assert (shared.rig_params.betas == shared.rig_params.betas[:1]).all()
    assert (shared.cameras.Ks == shared.cameras.Ks[:1]).all()
    assert shared.error.mean() < 1.3 * single.error.mean()
    wrong = [
        shape_error(tiny_rig, params.betas, truth.betas)
        for params in (shared.rig_params, single.rig_params)
    ]
    assert wrong[0] < 0.9 * wrong[1]


def test_an_arrow_is_solved_like_any_other_system():
    frames, shape, own = 3, 4, 5
    factors = torch.randn(frames, 20, shape + own, dtype=torch.float64)
    squares, gradient = factors.mT @ factors, torch.randn(frames, shape + own).double()
    is_free = torch.ones(frames, shape + own, dtype=torch.bool)
    is_free[1, shape + 2] = False
    steps = solve_arrow(squares, gradient, is_free, shape)
    # All unknowns of all frames in one matrix.
    expand = torch.zeros(frames, shape + own, shape + frames * own, dtype=torch.float64)
    expand[:, :shape, :shape] = torch.eye(shape)
    for t in range(frames):
        first = shape + t * own
        expand[t, shape:, first : first + own] = torch.eye(own)
    expand[1, shape + 2] = 0
    dense = torch.einsum("tua,tuv,tvb->ab", expand, squares, expand)
    dense[shape + own + 2, shape + own + 2] = 1
    solution = torch.linalg.solve(dense, torch.einsum("tua,tu->a", expand, gradient))
    torch.testing.assert_close(steps, torch.einsum("tua,a->tu", expand, solution))


@pytest.mark.parametrize("kind", ["procedural", "flame"])
def test_unknowns_are_the_rigs_own_parameters(kind, tiny_rig, request):
    rig = tiny_rig if kind == "procedural" else request.getfixturevalue("flame_rig")
    sizes = (min(rig.num_betas, 20), min(rig.num_expressions, 10))
    state = random_state(2, *sizes)
    vertices = build_vertex_basis(rig, torch.arange(len(rig.v_template)), *sizes)
    posed = pose_points(vertices, build_joint_basis(rig, *sizes), state)
    expected = rig(to_rig_params(rig, state))
    torch.testing.assert_close(posed.float(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("still", [False, True])
def test_derivatives_of_points_are_exact(tiny_rig, still):
    ids = torch.cat([torch.arange(0, 1900, 97), find_landmark_places(tiny_rig).pupils])
    basis, joints = build_vertex_basis(tiny_rig, ids, 8, 6), build_joint_basis(tiny_rig, 8, 6)
    state = random_state(2, 8, 6)
    if still:
        state = replace(state, jaw=0 * state.jaw, gaze=0 * state.gaze)
    points, jacobian = pose_jacobian(basis, joints, state)
    torch.testing.assert_close(points, pose_points(basis, joints, state))

    def move(step):
        return pose_points(basis, joints, state.moved(step))

    torch.testing.assert_close(jacobian, differences(move, 24), atol=1e-8, rtol=1e-6)


def test_derivatives_of_residuals_are_exact(tiny_rig):
    places = find_landmark_places(tiny_rig)
    basis = build_landmark_basis(tiny_rig, places, num_betas=6, num_expressions=5)
    state = random_state(2, 6, 5)
    landmarks, irises = take_landmarks(tiny_rig, to_rig_params(tiny_rig, state), places)
    landmarks = (landmarks + 3 * torch.randn(landmarks.shape)).double()
    # A distant outlier scale gives all landmarks the same weight, whatever the step.
    config = LandmarkFitConfig(outlier_scale=1e9)
    targets = replace(
        select_targets(places, landmarks, irises.double()),
        focals=torch.full((2,), 1500.0, dtype=torch.float64),
        centre=torch.tensor([320.0, 240.0], dtype=torch.float64),
    )
    matches = find_outline(basis, targets, state, config)
    assert matches.is_near.any()

    def terms(step):
        moved = state.moved(step)
        found = [
            *point_terms(basis, targets, moved, config),
            outline_term(basis, targets, moved, matches, config),
        ]
        return [torch.cat(parts, dim=1) for parts in zip(*found, strict=True)]

    steps = torch.zeros(2, 21, dtype=torch.float64)
    _, jacobian = terms(steps)
    expected = differences(lambda step: terms(step)[0], 21)
    torch.testing.assert_close(jacobian, expected, atol=1e-7, rtol=1e-6)


def test_flame_goes_the_whole_way(flame_rig):
    # The mesh is made up, so its landmarks lie anywhere: only what is fitted to is looked at.
    places = find_landmark_places(flame_rig)
    truth = flame_rig.neutral(2)
    landmarks, irises = take_landmarks(flame_rig, truth, places)
    config = replace(TRUSTING, outline_weight=0.0, shape_prior=0.01)
    fit = fit_landmarks(flame_rig, landmarks, irises, **SIZE, config=config)
    assert fit.rig_params.betas.shape == (2, 300)
    assert fit.rig_params.expression.shape == (2, flame_rig.num_expressions)
    assert not fit.rig_params.betas[:, config.max_betas :].any()
    assert fit.error.max() < 0.03
    flame_rig(fit.rig_params)


@pytest.mark.parametrize("spread", [5.0, 60.0])
def test_bad_landmarks_give_a_bounded_head(tiny_rig, spread):
    places = find_landmark_places(tiny_rig)
    state = random_state(3, tiny_rig.num_betas, tiny_rig.num_expressions)
    turn = torch.tensor([[0.0, 1.5, 0.0], [1.2, 0.0, 0.0], [0.0, 2.8, 0.0]]).double()
    state = replace(state, rotations=axis_angle_to_matrix(turn))
    landmarks, irises = take_landmarks(tiny_rig, to_rig_params(tiny_rig, state), places)
    landmarks = landmarks + spread * torch.randn(landmarks.shape)
    fit = fit_landmarks(tiny_rig, landmarks, irises, **SIZE)
    params, config = fit.rig_params, LandmarkFitConfig()
    for value in (*vars(params).values(), fit.cameras.Ks, fit.error):
        assert value.isfinite().all()
    assert params.betas.abs().max() <= config.beta_limit
    assert params.expression.min() >= -0.151
    assert params.expression.max() <= 1.151
    assert params.jaw_pose[:, 0].max() <= config.jaw_pitch_range[1] + 1e-6
    assert params.leye_pose.abs().max() <= config.gaze_limit + 1e-6


def test_irises_are_optional_and_give_the_gaze(tiny_rig):
    places = exact(tiny_rig)
    params = tiny_rig.neutral()
    eyes = torch.tensor([[0.1, 0.3, 0.0]])
    params = replace(params, leye_pose=eyes, reye_pose=eyes)
    landmarks, irises = take_landmarks(tiny_rig, params, places)
    with_eyes = fit_landmarks(tiny_rig, landmarks, irises, **SIZE, places=places)
    without = fit_landmarks(tiny_rig, landmarks, **SIZE, places=places)
    torch.testing.assert_close(with_eyes.rig_params.leye_pose, eyes, atol=0.03, rtol=0)
    # Lids follow the eyes up and down, and tell a little.
    assert without.rig_params.leye_pose[:, 1].abs().max() < 1e-3


def test_what_cannot_be_fitted_is_refused(tiny_rig):
    places = find_landmark_places(tiny_rig)
    landmarks, irises = take_landmarks(tiny_rig, tiny_rig.neutral(), places)
    with pytest.raises(ValueError, match=r"`landmarks` must have shape"):
        fit_landmarks(tiny_rig, landmarks[:, :100], **SIZE)
    with pytest.raises(ValueError, match="at least one frame"):
        fit_landmarks(tiny_rig, landmarks[:0], **SIZE)
    with pytest.raises(ValueError, match=r"`irises` must have shape"):
        fit_landmarks(tiny_rig, landmarks, irises[:, :1], **SIZE)
    with pytest.raises(ValueError, match="`landmarks` must be finite"):
        fit_landmarks(tiny_rig, landmarks * torch.nan, **SIZE)
    with pytest.raises(ValueError, match="this is no face"):
        fit_landmarks(tiny_rig, landmarks * 0, **SIZE)
    with pytest.raises(ValueError, match="`camera_distance` must be positive"):
        LandmarkFitConfig(camera_distance=0)
    with pytest.raises(ValueError, match="`shape_prior` must be finite"):
        LandmarkFitConfig(shape_prior=-1)
    with pytest.raises(ValueError, match="`jaw_pitch_range` must hold zero"):
        LandmarkFitConfig(jaw_pitch_range=(0.1, 0.5))


@pytest.mark.slow
def test_a_real_face_at_any_roll(tiny_rig):
    tracker = PortraitTracker.from_pretrained(TRACKER)
    photograph = Image.open(PHOTOGRAPH).convert("RGB")
    fits = []
    for degrees in range(0, 360, 30):
        portrait = tracker(photograph.rotate(degrees, Image.Resampling.BICUBIC))[0]
        picture = {"width": portrait.width, "height": portrait.height}
        found = portrait.landmarks[None], portrait.irises[None]
        fits.append(fit_landmarks(tiny_rig, *found, **picture))
    assert fits[0].error[0] < 0.016
    upright = axis_angle_to_matrix(fits[0].rig_params.global_orient[0])
    for i, fit in enumerate(fits):
        assert fit.error[0] < 0.02
        params, expected = fit.rig_params, fits[0].rig_params
        assert shape_error(tiny_rig, params.betas, expected.betas) < 1e-3
        assert (params.expression - expected.expression).abs().mean() < 0.03
        roll = axis_angle_to_matrix(torch.tensor([0.0, 0.0, math.radians(30 * i)]))
        turn = axis_angle_to_matrix(params.global_orient[0])
        wrong = matrix_to_axis_angle((roll @ upright).T @ turn)
        assert wrong.norm() < math.radians(3)

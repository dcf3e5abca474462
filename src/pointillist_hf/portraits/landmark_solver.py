# SPDX-License-Identifier: Apache-2.0
"""Gauss-Newton with limits on the unknowns, for frames of many people or of one.

With one identity for all frames the equations are an arrow: each frame's own unknowns are
eliminated first, and what is left is as small as for one frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord
from ..rigs.landmark_places import LandmarkPlaces
from .head_state import HeadState
from .landmark_fit_config import LandmarkFitConfig
from .landmark_residuals import LandmarkBasis, LandmarkTargets, normal_equations

FRAMES_AT_ONCE = 16  # bounds the memory of the Jacobians
# The longest step: far from the solution the derivatives say little.
MAX_TURN, MAX_COEFFICIENT, MAX_SHIFT = 0.5, 1.5, 0.3  # radians, 1, metres


@dataclass(frozen=True)
class Priors(TensorRecord):
    """Where the unknowns are expected, how firmly, and where they must stay."""

    precisions: Tensor  # [U] squared strengths
    lowest: Tensor  # [U]
    highest: Tensor  # [U]
    longest: Tensor  # [U] step
    shift: Tensor  # [T, 3] the expected one, metres


def solve_landmarks(
    basis: LandmarkBasis,
    targets: LandmarkTargets,
    start: HeadState,
    places: LandmarkPlaces,
    *,
    config: LandmarkFitConfig,
    shared_shape: bool,
) -> HeadState:
    """The state that explains the targets best.

    Args:
        basis: Of the rig.
        targets: T frames.
        start: Roughly the right poses.
        places: Whose priors are used.
        config: Weights and limits.
        shared_shape: Whether all frames get the same betas.
    """
    num_betas, num_expressions = start.betas.shape[1], start.expression.shape[1]
    priors = build_priors(places, start, config)
    state = start
    for iteration in range(config.num_iterations):
        squares, gradient = _sum_equations(basis, targets, state, config)
        values = _values(state, priors)
        squares = squares + torch.diag(priors.precisions)
        gradient = gradient + priors.precisions * values
        if shared_shape:
            gradient_of_shape = gradient[:, :num_betas].sum(0, keepdim=True)
            gradient_of_shape = gradient_of_shape.expand(len(gradient), -1)
        else:
            gradient_of_shape = gradient[:, :num_betas]
        downhill = torch.cat([gradient_of_shape, gradient[:, num_betas:]], dim=1)
        is_free = ~((values <= priors.lowest) & (downhill > 0))
        is_free &= ~((values >= priors.highest) & (downhill < 0))
        if iteration < config.num_pose_iterations:
            is_free[:, : num_betas + num_expressions] = False
        step = (
            solve_arrow(squares, gradient, is_free, num_betas)
            if shared_shape
            else _solve(squares, gradient, is_free)
        )
        step = torch.maximum(torch.minimum(step, priors.longest), -priors.longest)
        state = _limit(state.moved(-step), priors)
    return state


def build_priors(places: LandmarkPlaces, start: HeadState, config: LandmarkFitConfig) -> Priors:
    """What is known before a landmark is seen."""
    shapes = config.shape_prior * places.shape_priors[: start.betas.shape[1]]
    expressions = config.expression_prior * places.expression_priors[: start.expression.shape[1]]
    like = start.shift.new_tensor
    pose = [
        config.jaw_pitch_prior, config.jaw_yaw_prior, config.gaze_prior, config.gaze_prior,
        0.0, 0.0, 0.0, 0.0, 0.0, config.distance_prior,
    ]  # fmt: skip
    strengths = torch.cat([shapes.to(start.shift), expressions.to(start.shift), like(pose)])
    low, high = places.expression_range
    jaw_low, jaw_high = config.jaw_pitch_range
    side, gaze, free = config.jaw_yaw_limit, config.gaze_limit, torch.inf
    num_betas, num_expressions = len(shapes), len(expressions)

    def limits(beta: float, expression: float, pose: list[float]) -> Tensor:
        return like([beta] * num_betas + [expression] * num_expressions + pose)

    return Priors(
        precisions=strengths.square(),
        lowest=limits(-config.beta_limit, low, [jaw_low, -side, -gaze, -gaze] + [-free] * 6),
        highest=limits(config.beta_limit, high, [jaw_high, side, gaze, gaze] + [free] * 6),
        longest=limits(MAX_COEFFICIENT, MAX_COEFFICIENT, [MAX_TURN] * 7 + [MAX_SHIFT] * 3),
        shift=start.shift,
    )


def _values(state: HeadState, priors: Priors) -> Tensor:
    """The unknowns, relative to where they are expected. [T, U]"""
    turn = torch.zeros_like(state.shift)
    parts = (state.betas, state.expression, state.jaw, state.gaze, turn, state.shift - priors.shift)
    return torch.cat(parts, dim=1)


def _limit(state: HeadState, priors: Priors) -> HeadState:
    lowest, highest = (
        [part[0] for part in state.split(limit[None])] for limit in (priors.lowest, priors.highest)
    )
    names = ("betas", "expression", "jaw", "gaze")
    limited = {
        name: torch.maximum(torch.minimum(getattr(state, name), high), low)
        for name, low, high in zip(names, lowest[:4], highest[:4], strict=True)
    }
    return replace(state, **limited)


def _sum_equations(
    basis: LandmarkBasis, targets: LandmarkTargets, state: HeadState, config: LandmarkFitConfig
) -> tuple[Tensor, Tensor]:
    """`normal_equations` of all frames, a few at a time."""
    parts = []
    for first in range(0, len(targets.points), FRAMES_AT_ONCE):
        frames = slice(first, first + FRAMES_AT_ONCE)
        parts.append(normal_equations(basis, targets[frames], state[frames], config))
    squares, gradients = zip(*parts, strict=True)
    return torch.cat(squares), torch.cat(gradients)


def _solve(squares: Tensor, gradient: Tensor, is_free: Tensor) -> Tensor:
    """Steps of each frame; unknowns that are not free stay. [T, U]"""
    squares, gradient = _hold(squares, gradient, is_free)
    return torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(squares))[..., 0]


def solve_arrow(squares: Tensor, gradient: Tensor, is_free: Tensor, num_betas: int) -> Tensor:
    """Steps of all frames, the first unknowns being the same in each. [T, U]"""
    squares, gradient = _hold(squares, gradient, is_free)
    shape, own = slice(0, num_betas), slice(num_betas, None)
    factor = torch.linalg.cholesky(squares[:, own, own])
    right = torch.cat([squares[:, own, shape], gradient[:, own, None]], dim=-1)
    solved = torch.cholesky_solve(right, factor)
    reduced = squares[:, shape, shape] - squares[:, shape, own] @ solved[..., :-1]
    left = gradient[:, shape] - torch.einsum("tsu,tu->ts", squares[:, shape, own], solved[..., -1])
    of_shape = torch.linalg.solve(reduced.sum(0), left.sum(0))
    own_steps = solved[..., -1] - solved[..., :-1] @ of_shape
    return torch.cat([of_shape.expand(len(gradient), -1), own_steps], dim=1)


def _hold(squares: Tensor, gradient: Tensor, is_free: Tensor) -> tuple[Tensor, Tensor]:
    """Equations in which unknowns that are not free take no step."""
    free = is_free.to(squares)
    held = torch.diag_embed(1 - free)
    return squares * free[:, :, None] * free[:, None] + held, gradient * free

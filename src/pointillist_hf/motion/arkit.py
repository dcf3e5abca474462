# SPDX-License-Identifier: Apache-2.0
"""ARKit's 52 coefficients as rig parameters: what iPhones and MediaPipe say about a face.

A rig that has expressions of these names takes them as they are, once pairs agree (`corrections`).
What is a joint here moves by angles: the jaw opens, the eyes look. `mouthClose` is solved for
(`lip_closure`). A rig without named expressions, such as FLAME, gets the coefficients that move its
68 landmarks the way the named rig's landmarks move, by least squares.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from ..geometry.structures import RigParams
from ..rigs.head_rig import HeadRig
from ..rigs.procedural_rig import ProceduralHeadRig
from .arkit_names import ARKIT_NAMES
from .corrections import correct_pairs
from .lip_closure import closing_expression, fit_lip_closure

logger = logging.getLogger(__name__)

JAW_OPEN_ANGLE = 0.35  # radians at full strength
GAZE_YAW, GAZE_PITCH = 0.6, 0.45  # radians at full strength
# Coefficients that turn a joint: (joint, axis, angle at full strength). Positive turns about x nod
# down, about y to the subject's left.
JOINT_MOVES = {
    "jawOpen": ("jaw_pose", 0, JAW_OPEN_ANGLE),
    "eyeLookDownLeft": ("leye_pose", 0, GAZE_PITCH),
    "eyeLookUpLeft": ("leye_pose", 0, -GAZE_PITCH),
    "eyeLookOutLeft": ("leye_pose", 1, GAZE_YAW),
    "eyeLookInLeft": ("leye_pose", 1, -GAZE_YAW),
    "eyeLookDownRight": ("reye_pose", 0, GAZE_PITCH),
    "eyeLookUpRight": ("reye_pose", 0, -GAZE_PITCH),
    "eyeLookOutRight": ("reye_pose", 1, -GAZE_YAW),
    "eyeLookInRight": ("reye_pose", 1, GAZE_YAW),
}
# Of the least squares, relative to the mean square of the landmark directions: a face that needs
# coefficients far out for a movement rather does without it.
RIDGE = 0.02


def arkit_params(
    coefficients: Mapping[str, Tensor | float],
    rig: HeadRig,
    *,
    betas: Tensor | None = None,
    expression_map: Tensor | None = None,
    lip_closure: Tensor | None = None,
) -> RigParams:
    """Rig parameters of ARKit's coefficients.

    Args:
        coefficients: Strengths by name, usually in [0, 1]: numbers, or one per frame [T].
        rig: The rig to drive.
        betas: Of the person. [S]
        expression_map: For a rig without ARKit's names, from `fit_expression_map`. [E, 52]
        lip_closure: From `fit_lip_closure` with `JAW_OPEN_ANGLE`, where frames come one by one;
            the default fits it to `betas` when the lips need it. [K, E]

    Returns:
        T frames, one if all coefficients are numbers.

    Raises:
        ValueError: A name is not ARKit's, frames differ in number, a value is not finite, or the
            rig needs an `expression_map`.

    Example:
        >>> arkit_params({"jawOpen": 1.0, "eyeBlinkLeft": 0.5}, rig).jaw_pose
        tensor([[0.3500, 0.0000, 0.0000]])
    """
    values = _stack_frames(coefficients).to(rig.v_template)
    if expression_map is None:
        expression_map = _named_map(rig)
    if expression_map.shape != (rig.num_expressions, len(ARKIT_NAMES)):
        raise ValueError(
            f"`expression_map` must have shape ({rig.num_expressions}, {len(ARKIT_NAMES)}) for "
            f"this rig, got {tuple(expression_map.shape)}."
        )
    _warn_of_unknown(values, expression_map)
    has_tongue = bool(expression_map[:, ARKIT_NAMES.index("tongueOut")].any())
    values = correct_pairs(values, has_tongue=has_tongue)
    person = None if betas is None else betas.expand(len(values), -1)
    neutral = rig.neutral(len(values), betas=person)
    params = {field.name: getattr(neutral, field.name) for field in fields(neutral)}
    for name, (joint, axis, angle) in JOINT_MOVES.items():
        params[joint][:, axis] += angle * values[:, ARKIT_NAMES.index(name)]
    params["expression"] = _expression(values, rig, expression_map, lip_closure, betas)
    return RigParams(**params)


def _expression(
    values: Tensor,
    rig: HeadRig,
    expression_map: Tensor,
    lip_closure: Tensor | None,
    betas: Tensor | None,
) -> Tensor:
    """Of coefficients whose pairs agree. [T, 52] -> [T, E]"""
    jaw_open, mouth_close = (values[:, ARKIT_NAMES.index(n)] for n in ("jawOpen", "mouthClose"))
    expression_map = expression_map.to(values).clone()
    if lip_closure is None and not len(rig.landmark_faces):
        return values @ expression_map.T  # of lips that cannot be found, the map knows more
    expression_map[:, ARKIT_NAMES.index("mouthClose")] = 0
    expression = values @ expression_map.T
    if not mouth_close.any():
        return expression
    if lip_closure is None:
        lip_closure = fit_lip_closure(rig, JAW_OPEN_ANGLE, betas=betas)
    return expression + closing_expression(lip_closure.to(values), jaw_open, mouth_close)


def _stack_frames(coefficients: Mapping[str, Tensor | float]) -> Tensor:
    """All 52 coefficients, zero where none is given. [T, 52]"""
    unknown = [name for name in coefficients if name not in ARKIT_NAMES]
    if unknown:
        raise ValueError(f"`coefficients` must have ARKit's names, got {', '.join(unknown)}.")
    columns = {name: torch.as_tensor(value).float() for name, value in coefficients.items()}
    lengths = {len(column) for column in columns.values() if column.ndim}
    if len(lengths) > 1 or 0 in lengths or any(column.ndim > 1 for column in columns.values()):
        raise ValueError("`coefficients` must be numbers or have one value per frame each.")
    values = torch.zeros(lengths.pop() if lengths else 1, len(ARKIT_NAMES))
    for name, column in columns.items():
        if not torch.isfinite(column).all():
            raise ValueError(f"`{name}` must be finite numbers.")
        values[:, ARKIT_NAMES.index(name)] = column
    return values


def _named_map(rig: HeadRig) -> Tensor:
    """Ones where an expression of the rig has ARKit's name. [E, 52]"""
    weights = torch.zeros(rig.num_expressions, len(ARKIT_NAMES))
    for row, name in enumerate(rig.expression_names):
        if name in ARKIT_NAMES:
            weights[row, ARKIT_NAMES.index(name)] = 1
    if not weights.any():
        raise ValueError(
            f"`expression_map` must be given: {type(rig).__name__} has no expressions of ARKit's "
            "names. Make one with `fit_expression_map`."
        )
    return weights


def _warn_of_unknown(values: Tensor, expression_map: Tensor) -> None:
    moved = values.abs().amax(0) > 0.01
    known = expression_map.any(0)
    lost = [
        name
        for i, name in enumerate(ARKIT_NAMES)
        if moved[i] and not known[i] and name not in JOINT_MOVES
    ]
    if lost:
        logger.warning("The rig has no expression for %s; ignored.", ", ".join(lost))


def fit_expression_map(rig: HeadRig, named_rig: HeadRig, *, ridge: float = RIDGE) -> Tensor:
    """How a rig without named expressions makes ARKit's, learnt from one that has them.

    The mean heads are laid over each other by their landmarks (scale and translation); then every
    expression of the named rig is a movement of 68 landmarks, and the coefficients are those that
    move the rig's landmarks likewise, by ridge regression.

    Args:
        rig: The rig to drive; it needs landmarks.
        named_rig: A rig with ARKit's names, such as `ProceduralHeadRig`.
        ridge: Strength of the regularisation.

    Returns:
        [E, 52]; zero for what joints do and for what `named_rig` does not have.
    """
    directions = _landmark_directions(rig)  # [E, 204]
    wanted = _landmark_directions(named_rig)  # [E', 204]
    wanted = wanted * _landmark_size(rig) / _landmark_size(named_rig)
    gram = directions @ directions.T
    damping = ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    solution = torch.linalg.solve(gram + damping, directions @ wanted.T)  # [E, E']
    return (solution @ _named_map(named_rig).to(solution)).to(rig.v_template)


def find_expression_map(rig: HeadRig) -> Tensor | None:
    """The map that ARKit's coefficients drive a rig through; None where they are its own.

    Raises:
        ValueError: The rig has neither their names nor landmarks to learn from.
    """
    if {*rig.expression_names} & {*ARKIT_NAMES}:
        return None
    if not len(rig.landmark_faces):
        raise ValueError(
            f"ARKit's coefficients drive {type(rig).__name__} by its 68 landmarks, and it has "
            "none: give the file landmark_embedding_with_eyes.npy, `--landmarks` in commands and "
            "`landmarks` of `from_flame`, or pass an `expression_map`."
        )
    return fit_expression_map(rig, ProceduralHeadRig())


def _landmark_directions(rig: HeadRig) -> Tensor:
    """What a unit of each expression does to the landmarks of the mean head. [E, 204] float64"""
    moved = rig.v_template + rig.exprdirs.permute(2, 0, 1)
    still = rig.landmarks(rig.v_template[None])
    return (rig.landmarks(moved) - still).flatten(1).double()


def _landmark_size(rig: HeadRig) -> Tensor:
    """Root mean square distance of the landmarks from their centre."""
    points = rig.landmarks(rig.v_template[None])[0].double()
    return (points - points.mean(0)).square().sum(-1).mean().sqrt()

# SPDX-License-Identifier: Apache-2.0
"""The unknowns of a landmark fit, and their translation into the parameters of a rig.

The neck stays straight, so the head turns as one: head space is the rig's space before the head is
turned, with jaw, eyes, identity and expression in place. Unknowns stand in the order of
`HeadState.split`; `turn` is a small rotation of the world about its axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..geometry.structures import RigParams, TensorRecord
from ..rigs.head_rig import HeadRig


@dataclass(frozen=True)
class HeadState(TensorRecord):
    """The unknowns in T frames."""

    betas: Tensor  # [T, S]
    expression: Tensor  # [T, E]
    jaw: Tensor  # [T, 2] pitch and yaw, radians
    gaze: Tensor  # [T, 2] pitch and yaw of both eyes, radians
    rotations: Tensor  # [T, 3, 3] of the head
    shift: Tensor  # [T, 3] where the origin of head space comes to lie, metres

    def moved(self, step: Tensor) -> HeadState:
        """The state after a step of all unknowns. [T, U]"""
        betas, expression, jaw, gaze, turn, shift = self.split(step)
        return HeadState(
            betas=self.betas + betas,
            expression=self.expression + expression,
            jaw=self.jaw + jaw,
            gaze=self.gaze + gaze,
            rotations=axis_angle_to_matrix(turn) @ self.rotations,
            shift=self.shift + shift,
        )

    def split(self, unknowns: Tensor) -> tuple[Tensor, ...]:
        """betas, expression, jaw, gaze, turn and shift. [T, U]"""
        return unknowns.split([self.betas.shape[1], self.expression.shape[1], 2, 2, 3, 3], dim=1)

    def __getitem__(self, frames: slice) -> HeadState:
        return HeadState(**{name: value[frames] for name, value in vars(self).items()})


def to_rig_params(rig: HeadRig, state: HeadState) -> RigParams:
    """The state in the rig's own terms, in the rig's dtype; coefficients not fitted are zero."""
    like = rig.v_template
    neutral = rig.neutral(len(state.betas))
    betas, expression = neutral.betas.clone(), neutral.expression.clone()
    betas[:, : state.betas.shape[1]] = state.betas.to(like)
    expression[:, : state.expression.shape[1]] = state.expression.to(like)
    shaped = torch.einsum("jv,vcs->jcs", rig.J_regressor[:1], rig.shapedirs)
    moved = torch.einsum("jv,vce->jce", rig.J_regressor[:1], rig.exprdirs)
    roots = rig.J_regressor[:1] @ rig.v_template
    roots = roots + torch.einsum("jcs,ts->tjc", shaped, betas)
    roots = (roots + torch.einsum("jce,te->tjc", moved, expression))[:, 0].double()
    # The rig turns about its root joint, the fit about the origin.
    about_root = torch.einsum("tab,tb->ta", state.rotations, roots) - roots
    gaze = pad(state.gaze, (0, 1)).to(like)
    return replace(
        neutral,
        betas=betas,
        expression=expression,
        global_orient=matrix_to_axis_angle(state.rotations).to(like),
        jaw_pose=pad(state.jaw, (0, 1)).to(like),
        leye_pose=gaze,
        reye_pose=gaze.clone(),
        transl=(state.shift + about_root).to(like),
    )

# SPDX-License-Identifier: Apache-2.0
"""What a page carries of an avatar and of a motion: tables, and how exact each is.

A point inherits from the face it is bound to (Eq. 5 of the paper), and what it inherits is linear
in the corners. So the page carries the rig's arrays once, at the vertices that points hang on, and
of a point its face and its place in it.
"""

from __future__ import annotations

import torch
from numpy import ndarray
from torch import Tensor

from ..geometry.rotations import matrix_to_axis_angle, quat_to_matrix
from ..geometry.structures import Gaussians, RigParams
from ..geometry.triangles import barycentric_coordinates
from ..rigs.head_rig import HeadRig

# A number is off by half a step at most. A pixel of a head in 512 pixels is half a millimetre.
STEPS = {
    "means": 5e-6,  # metres
    "log_scales": 0.01,  # half a hundredth of the size
    "axis_angles": 1 / 256,  # radians
    "colors": 1 / 255,
    "opacities": 1 / 255,
    "bindings": 1,
    "barycentric": 1 / 4096,
    "faces": 1,
    "vertices": 2e-6,  # metres
    "exprdirs": 2e-6,  # metres, of a coefficient of 1
    "posedirs": 2e-6,
    "lbs_weights": 1 / 65536,  # finer, as they multiply places and not small offsets
    "joints": 1e-7,  # metres
    "joint_dirs": 1e-7,
    "motion_expression": 1e-4,
    "motion_poses": 1e-4,  # radians
    "motion_transl": 1e-5,  # metres
}


def tabulate_avatar(
    gaussians: Gaussians, bindings: Tensor, rig: HeadRig, betas: Tensor
) -> dict[str, ndarray]:
    """N points, the F faces that they are bound to, and the V corners of these.

    Returns:
        Of points `means, log_scales, axis_angles, colors` [N, 3], `opacities, bindings` [N, 1] and
        `barycentric` [N, 2], that of the second and third corner; `faces` [F, 3]; of vertices
        `vertices` at rest [V, 3], `exprdirs` [V, 3 E], `posedirs` [V, 3 * 36], left out where all
        are zero, and `lbs_weights` [V, J]; `joints` [J, 3] of this identity and their
        `joint_dirs` [J, 3 E].
    """
    rest = rig.canonical_vertices(betas[None])[0]
    barycentric = barycentric_coordinates(gaussians.means, rest[rig.faces[bindings]])
    face_ids, bindings = torch.unique(bindings, return_inverse=True)
    vertex_ids, faces = torch.unique(rig.faces[face_ids], return_inverse=True)
    tables = {
        "means": gaussians.means,
        "log_scales": gaussians.scales.log(),
        "axis_angles": matrix_to_axis_angle(quat_to_matrix(gaussians.quats)),
        "colors": gaussians.colors,
        "opacities": gaussians.opacities[:, None],
        "bindings": bindings[:, None],
        "barycentric": barycentric[:, 1:],
        "faces": faces,
        "vertices": rest[vertex_ids],
        "exprdirs": rig.exprdirs[vertex_ids].flatten(1),
        "lbs_weights": rig.lbs_weights[vertex_ids],
        "joints": rig.J_regressor @ rest,
        "joint_dirs": torch.einsum("jv,vce->jce", rig.J_regressor, rig.exprdirs).flatten(1),
    }
    if rig.posedirs.any():
        tables["posedirs"] = rig.posedirs[vertex_ids].flatten(1)
    return {name: table.detach().cpu().numpy() for name, table in tables.items()}


def tabulate_motion(motion: RigParams) -> dict[str, ndarray]:
    """T frames: `motion_expression` [T, E], `motion_poses` [T, 3 J], `motion_transl` [T, 3]."""
    tables = {
        "motion_expression": motion.expression,
        "motion_poses": motion.poses.flatten(1),
        "motion_transl": motion.transl,
    }
    return {name: table.detach().cpu().numpy() for name, table in tables.items()}

# SPDX-License-Identifier: Apache-2.0
"""The head mesh that drives an avatar, in FLAME's terms: blendshapes, joints, skinning weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.structures import POSE_NAMES, RigParams
from ..geometry.triangles import face_areas, interpolate_corners, sample_surface
from ..guarded_push import GuardedPush
from .skinning import JointMotion, SkinnedPoints, move_joints, skin_points

FLOAT_ARRAYS = (
    "v_template",  # [V, 3] mean head, metres
    "shapedirs",  # [V, 3, S] identity directions
    "exprdirs",  # [V, 3, E] expression directions
    "posedirs",  # [V, 3, 36] pose correctives
    "J_regressor",  # [J, V]
    "lbs_weights",  # [V, J]
    "landmark_barycentric",  # [68, 3]
)
INDEX_ARRAYS = (
    "faces",  # [F, 3]
    "parents",  # [J]
    "landmark_faces",  # [68]
)


class HeadRig(GuardedPush, ModelMixin, ConfigMixin):
    """A head of V vertices and F triangles; subclasses say where its arrays come from.

    The arrays are buffers, so a rig is saved, loaded and moved like any model, but it has nothing
    to train, and it stays in float32: half precision is coarser than a pore.
    """

    config_name = "config.json"
    _keep_in_fp32_modules = list(FLOAT_ARRAYS)  # noqa: RUF012  diffusers' class attribute

    may_be_shared = False  # whether its licence lets avatars carry parts of it into the world

    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]

    def to(self, *args: torch.device | str | torch.dtype, **kwargs: object) -> HeadRig:
        """Moves the rig to a device; a dtype is ignored."""
        kwargs.pop("dtype", None)
        places = [arg for arg in args if not isinstance(arg, torch.dtype)]
        return super().to(*places, **kwargs) if places or kwargs else self

    def on_cpu(self) -> HeadRig:
        """The rig on the CPU: itself, or a copy."""
        return self if self.v_template.device.type == "cpu" else copy.deepcopy(self).to("cpu")

    @property
    def num_faces(self) -> int:
        """Number of triangles F, the size of the binding vocabulary."""
        return len(self.faces)

    @property
    def num_betas(self) -> int:
        """Number of identity coefficients S."""
        return self.shapedirs.shape[-1]

    @property
    def num_expressions(self) -> int:
        """Number of expression coefficients E."""
        return self.exprdirs.shape[-1]

    def neutral(self, num_frames: int = 1, *, betas: Tensor | None = None) -> RigParams:
        """Zero pose and expression, of the mean head or of the heads `betas` [T, S]."""
        zeros = self.v_template.new_zeros
        betas = zeros(num_frames, self.num_betas) if betas is None else betas
        frames = len(betas)
        poses = {name: zeros(frames, 3) for name in (*POSE_NAMES, "transl")}
        return RigParams(betas=betas, expression=zeros(frames, self.num_expressions), **poses)

    def expression(self, weights: Mapping[str, float]) -> Tensor:
        """Coefficients of a named expression; a name without Left / Right means both sides.

        Args:
            weights: Strength of each named expression, 1 is full.

        Returns:
            [1, E]

        Raises:
            ValueError: The rig has no expression of that name.
        """
        coefficients = self.v_template.new_zeros(1, self.num_expressions)
        for name, weight in weights.items():
            wanted = {name, f"{name}Left", f"{name}Right"}
            found = [i for i, known in enumerate(self.expression_names) if known in wanted]
            if not found:
                known = ", ".join(self.expression_names)
                raise ValueError(f"`{name}` is no expression of this rig. It knows: {known}.")
            coefficients[0, found] = weight
        return coefficients

    def canonical_vertices(self, betas: Tensor, static_offset: Tensor | None = None) -> Tensor:
        """Vertices of identities at rest: zero pose, zero expression.

        Args:
            betas: [T, S]
            static_offset: What the coefficients cannot say of this person, metres. [V, 3]

        Returns:
            Metres. [T, V, 3]
        """
        template = self.v_template if static_offset is None else self.v_template + static_offset
        return template + torch.einsum("vcs,ts->tvc", self.shapedirs, betas)

    def sample_points(self, betas: Tensor, num_points: int, *, seed: int = 0) -> Tensor:
        """Seeded surface samples of the canonical heads with their normals.

        The places are drawn on the mean head, so that sample i lies on the same spot of everybody.

        Args:
            betas: [T, S]
            num_points: P.
            seed: Of the places.

        Returns:
            Position in metres, then unit normal. [T, P, 6]
        """
        areas = face_areas(self.v_template, self.faces)
        face_ids, barycentric = sample_surface(areas, num_points, seed=seed)
        face_ids, barycentric = face_ids.to(self.faces.device), barycentric.to(self.v_template)
        vertices = self.canonical_vertices(betas)
        corners = vertices[:, self.faces[face_ids]]  # [T, P, 3, 3]
        a, b, c = corners.unbind(2)
        normals = normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        return torch.cat([torch.einsum("pk,tpkc->tpc", barycentric, corners), normals], dim=-1)

    @torch.no_grad()
    def face_anchors(self, betas: Tensor) -> Tensor:
        """Where the faces of the canonical heads lie: what anchored bindings are known by.

        Args:
            betas: [T, S]

        Returns:
            Centre in metres, then unit normal. [T, F, 6]
        """
        # Mixed precision would move centres by more than a bin.
        with torch.autocast(self.v_template.device.type, enabled=False):
            corners = self.canonical_vertices(betas.to(self.v_template))[:, self.faces]
        a, b, c = corners.unbind(2)
        normals = normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        return torch.cat([corners.mean(2), normals], dim=-1)

    def joint_motion(
        self, rig_params: RigParams, static_offset: Tensor | None = None
    ) -> JointMotion:
        """What the joints do in every frame. They sit where identity and expression put them."""
        shaped = self.canonical_vertices(rig_params.betas, static_offset)
        shaped = shaped + torch.einsum("vce,te->tvc", self.exprdirs, rig_params.expression)
        joints = torch.einsum("jv,tvc->tjc", self.J_regressor, shaped)
        return move_joints(rig_params.poses, joints, self.parents.tolist(), rig_params.transl)

    def skinned_vertices(self, vertices: Tensor) -> SkinnedPoints:
        """The rig's own vertices as points that can be skinned, at the rest positions [V, 3]."""
        return SkinnedPoints(vertices, self.exprdirs, self.posedirs, self.lbs_weights)

    def forward(self, rig_params: RigParams, static_offset: Tensor | None = None) -> Tensor:
        """Posed vertices.

        Args:
            rig_params: T frames.
            static_offset: Of the vertices at rest, metres. [V, 3]

        Returns:
            Metres. [T, V, 3]

        Raises:
            ValueError: The parameters belong to a rig with another number of coefficients.
        """
        self.check_params(rig_params)
        motion = self.joint_motion(rig_params, static_offset)
        canonical = self.canonical_vertices(rig_params.betas, static_offset)
        frames = [
            skin_points(
                self.skinned_vertices(vertices),
                rig_params.expression[t : t + 1],
                JointMotion(motion.transforms[t : t + 1], motion.pose_features[t : t + 1]),
            )[0]
            for t, vertices in enumerate(canonical)
        ]
        return torch.cat(frames)

    def check_params(self, rig_params: RigParams) -> None:
        """Refuses parameters made for another rig, and such as are not finite."""
        for name, expected in (("betas", self.num_betas), ("expression", self.num_expressions)):
            got = getattr(rig_params, name).shape[-1]
            if got != expected:
                raise ValueError(
                    f"`{name}` must have {expected} coefficients for {type(self).__name__}, "
                    f"got {got}. Parameters of another rig cannot be used."
                )
        for name in (*POSE_NAMES, "transl", "expression", "betas"):
            is_finite = getattr(rig_params, name).isfinite().all(dim=-1)
            if not is_finite.all():
                frame = int((~is_finite).nonzero()[0])
                raise ValueError(
                    f"`rig_params` must be finite, and `{name}` is not in frame {frame}; leave "
                    "that frame out, or fill it."
                )

    def landmarks(self, vertices: Tensor) -> Tensor:
        """The 68 iBUG landmarks on posed vertices. [T, V, 3] -> [T, 68, 3]"""
        points = [
            interpolate_corners(frame, self.faces, self.landmark_faces, self.landmark_barycentric)
            for frame in vertices
        ]
        return torch.stack(points)

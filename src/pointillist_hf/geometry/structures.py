# SPDX-License-Identifier: Apache-2.0
"""The records that flow through the package: frozen dataclasses of tensors.

Conventions, valid everywhere: metres, y up, the face looks along +z, x grows to the subject's
left. Cameras are OpenCV world-to-camera (x right, y down, z forward). Quaternions are wxyz. Colours
are sRGB in [0, 1]. Angles are radians.

Shape legend: B batch, N points = gaussians, L tokens, M conditioning tokens, D hidden size,
C cameras, T frames, H W pixels, V vertices, F faces, J joints, E expressions, S shape
coefficients, P rig sample points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from .number_checks import check_integer

MAX_SIDE, MAX_PIXELS = 2**16, 2**28  # of a picture; more would not fit into memory

Record = TypeVar("Record", bound="TensorRecord")


def check_shape(name: str, tensor: Tensor, expected: Sequence[int | None]) -> None:
    """Refuse a tensor whose shape is not `expected`; None stands for any size.

    Raises:
        ValueError: The tensor has another number of dimensions, or another size in a fixed one.
    """
    same_rank = tensor.ndim == len(expected)
    if not same_rank or any(
        e is not None and s != e for s, e in zip(tensor.shape, expected, strict=True)
    ):
        wanted = ", ".join("*" if e is None else str(e) for e in expected)
        raise ValueError(f"`{name}` must have shape ({wanted}), got {tuple(tensor.shape)}.")


@dataclass(frozen=True)
class TensorRecord:
    """A record of tensors that can be moved and converted as one thing."""

    def to(
        self: Record,
        *args: torch.device | str | torch.dtype,
        **kwargs: torch.device | str | torch.dtype,
    ) -> Record:
        """The same record with every tensor moved, those of records in it as well.

        Floating tensors alone change their dtype.
        """
        places = [arg for arg in args if not isinstance(arg, torch.dtype)]
        places_by_name = {name: arg for name, arg in kwargs.items() if name != "dtype"}
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                moved[name] = value.to(*args, **kwargs)
            elif isinstance(value, Tensor) and (places or places_by_name):
                moved[name] = value.to(*places, **places_by_name)
            elif isinstance(value, TensorRecord):
                moved[name] = value.to(*args, **kwargs)
        return replace(self, **moved)


@dataclass(frozen=True)
class CanonicalPoints(TensorRecord):
    """A point cloud in canonical space, each point tied to one face of the rig (paper Eq. 1)."""

    means: Tensor  # [N, 3] metres
    bindings: Tensor  # [N] face index

    def __post_init__(self) -> None:
        check_shape("means", self.means, (None, 3))
        check_shape("bindings", self.bindings, (len(self.means),))

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class BoundSplats(TensorRecord):
    """Splats in the frames of the triangles they ride on, before activation (GaussianAvatars).

    Lengths are in units of the triangle's size; `geometry.bound_splats` places them in the world.
    """

    means: Tensor  # [N, 3]
    log_scales: Tensor  # [N, 3]
    quats: Tensor  # [N, 4] wxyz, of any length
    opacity_logits: Tensor  # [N]
    sh: Tensor  # [N, K, 3] spherical harmonics of the colour, K = (degree + 1)^2
    bindings: Tensor  # [N] face index

    def __post_init__(self) -> None:
        count = len(self.means)
        check_shape("means", self.means, (count, 3))
        check_shape("log_scales", self.log_scales, (count, 3))
        check_shape("quats", self.quats, (count, 4))
        check_shape("opacity_logits", self.opacity_logits, (count,))
        check_shape("sh", self.sh, (count, None, 3))
        check_shape("bindings", self.bindings, (count,))
        if (self.sh_degree + 1) ** 2 != self.sh.shape[1]:
            raise ValueError(
                f"`sh` must hold 1, 4, 9 or 16 harmonics per splat, got {self.sh.shape[1]}."
            )

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: slice | Tensor) -> BoundSplats:
        return BoundSplats(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics."""
        return math.isqrt(self.sh.shape[1]) - 1


@dataclass(frozen=True)
class Gaussians(TensorRecord):
    """Renderable splats. Values are post-activation, so they go to the rasterizer as they are."""

    means: Tensor  # [..., N, 3] metres
    quats: Tensor  # [..., N, 4] wxyz; the rasterizer normalises them
    scales: Tensor  # [..., N, 3] metres, > 0
    opacities: Tensor  # [..., N] in [0, 1]
    colors: Tensor  # [..., N, 3] sRGB in [0, 1]

    def __post_init__(self) -> None:
        batch = tuple(self.means.shape[:-1])
        for name, width in (("means", 3), ("quats", 4), ("scales", 3), ("colors", 3)):
            check_shape(name, getattr(self, name), (*batch, width))
        check_shape("opacities", self.opacities, batch)

    def __len__(self) -> int:
        """Number of splats N, whatever the leading dimensions."""
        return self.means.shape[-2]

    def __getitem__(self, index: int | slice | Tensor) -> Gaussians:
        """Selects along the first dimension: splats of one cloud, or frames of a moving one."""
        return Gaussians(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Cameras(TensorRecord):
    """Pinhole cameras that share one image size."""

    viewmats: Tensor  # [C, 4, 4] world to camera
    Ks: Tensor  # [C, 3, 3] pixels
    width: int
    height: int

    def __post_init__(self) -> None:
        check_shape("viewmats", self.viewmats, (None, 4, 4))
        check_shape("Ks", self.Ks, (len(self.viewmats), 3, 3))
        check_integer("width", self.width, 1, MAX_SIDE)
        check_integer("height", self.height, 1, MAX_SIDE)
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(
                f"`width` x `height` must be at most {MAX_PIXELS} pixels, got {self.width} x "
                f"{self.height}."
            )

    def __len__(self) -> int:
        return len(self.viewmats)

    def __getitem__(self, index: slice | Tensor) -> Cameras:
        return replace(self, viewmats=self.viewmats[index], Ks=self.Ks[index])


POSE_NAMES = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")


@dataclass(frozen=True)
class RigParams(TensorRecord):
    """Who the subject is and what the head does, over T frames (or for T portraits)."""

    betas: Tensor  # [T, S] identity coefficients, in standard deviations
    expression: Tensor  # [T, E]
    global_orient: Tensor  # [T, 3] axis-angle, like every pose
    neck_pose: Tensor  # [T, 3]
    jaw_pose: Tensor  # [T, 3]
    leye_pose: Tensor  # [T, 3]
    reye_pose: Tensor  # [T, 3]
    transl: Tensor  # [T, 3] metres

    def __post_init__(self) -> None:
        frames = len(self.betas)
        check_shape("betas", self.betas, (frames, None))
        check_shape("expression", self.expression, (frames, None))
        for name in (*POSE_NAMES, "transl"):
            check_shape(name, getattr(self, name), (frames, 3))

    def __len__(self) -> int:
        return len(self.betas)

    def __getitem__(self, index: slice | Tensor) -> RigParams:
        """Frames by slice or index tensor; an int would drop the frame dimension and is refused."""
        if isinstance(index, int):
            raise TypeError("`RigParams` is indexed with a slice or a tensor: frames stay frames.")
        return RigParams(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def poses(self) -> Tensor:
        """Axis-angle of the joints in the order root, neck, jaw, left eye, right eye. [T, 5, 3]"""
        return torch.stack([getattr(self, name) for name in POSE_NAMES], dim=1)


def join_params(parts: Sequence[RigParams]) -> RigParams:
    """The frames of several, one after the other."""
    names = [f.name for f in fields(RigParams)]
    return RigParams(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


@dataclass(frozen=True)
class Capture:
    """Pictures of one person by calibrated cameras, and what a tracker found in them.

    K pictures, each by one camera at one of T time steps.
    """

    name: str
    images: Sequence[Tensor]  # K of [H, W, 3] sRGB, read from disk when asked for
    masks: Sequence[Tensor]  # K of [H, W, 1], 1 on the person; likewise
    cameras: Cameras  # K, one for each picture
    timesteps: Tensor  # [K] frame of `rig_params`
    camera_ids: tuple[str, ...]  # K, as the source calls its cameras
    splits: tuple[str, ...]  # K of "train", "val" (a camera held out) and "test" (a time held out)
    rig_params: RigParams  # T frames
    static_offset: Tensor  # [V, 3] metres, of the vertices at rest; [0, 3]: there is none
    rig: Mapping[str, object] | None = None  # which rig the parameters are for; None: not said

    def __post_init__(self) -> None:
        count = len(self.cameras)
        check_shape("timesteps", self.timesteps, (count,))
        check_shape("static_offset", self.static_offset, (None, 3))
        for name in ("images", "masks", "camera_ids", "splits"):
            if len(getattr(self, name)) != count:
                raise ValueError(
                    f"`{name}` must have one entry for each of {count} cameras, "
                    f"got {len(getattr(self, name))}."
                )

    def __len__(self) -> int:
        return len(self.cameras)

    def of_split(self, split: str) -> list[int]:
        """Pictures of a split, by number."""
        return [i for i, name in enumerate(self.splits) if name == split]

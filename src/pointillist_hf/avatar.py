# SPDX-License-Identifier: Apache-2.0
"""Floor 4. An avatar: one person's canonical gaussians, tied to a rig that moves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .exporters.atomic_file import write_atomically
from .exporters.gltf import write_glb
from .exporters.html_page import write_page
from .exporters.images import write_gif, write_png_folder
from .exporters.ply import write_bound_ply, write_ply
from .exporters.splat import write_splat
from .exporters.spz import write_spz
from .exporters.video import write_mp4
from .geometry.bound_splats import global_to_local
from .geometry.cameras import orbit_cameras
from .geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams
from .rendering import rasterize
from .rigs.binding import AnimationMode, animate_gaussians, bind_points, check_bindings
from .rigs.flame_rig import FlameHeadRig
from .rigs.head_rig import HeadRig
from .rigs.procedural_rig import ProceduralHeadRig
from .rigs.skinning import SkinnedPoints

FORMAT_VERSION = 1
GAUSSIANS_FILE, CONFIG_FILE, RIG_FOLDER = "avatar.safetensors", "avatar.json", "rig"
RIG_CLASSES: dict[str, type[HeadRig]] = {
    "ProceduralHeadRig": ProceduralHeadRig,
    "FlameHeadRig": FlameHeadRig,
}
GAUSSIAN_FIELDS = ("means", "quats", "scales", "opacities", "colors")

SPLAT_WRITERS: dict[str, Callable[[Gaussians, Path], None]] = {
    ".ply": write_ply,
    ".splat": write_splat,
    ".spz": write_spz,
    ".glb": write_glb,
}
CLIP_WRITERS: dict[str, Callable[..., None]] = {".gif": write_gif, ".mp4": write_mp4}
BOUND, PAGE = ".ga.ply", ".html"
# The longer of two that fit comes first.
AVATAR_SUFFIXES = (BOUND, *SPLAT_WRITERS, PAGE)


@dataclass(frozen=True)
class AnimatedAvatar:
    """An avatar in T frames."""

    gaussians: Gaussians  # [T, N]

    def __len__(self) -> int:
        return len(self.gaussians.means)

    def render(self, cameras: Cameras | None = None, *, background: Tensor | None = None) -> Tensor:
        """Pictures of the frames.

        Args:
            cameras: One for all frames, or one per frame; with a single frame, any number. The
                default is a portrait camera.
            background: sRGB in [0, 1]; the default is white. [3]

        Returns:
            One picture per pair of frame and camera, in [0, 1]. [C, H, W, 3]

        Raises:
            ValueError: The numbers of frames and cameras do not match.
        """
        cameras = orbit_cameras([0.0]) if cameras is None else cameras
        frames = len(self)
        if frames != len(cameras) and 1 not in (frames, len(cameras)):
            raise ValueError(
                f"`cameras` must be one, or one per frame: got {len(cameras)} cameras for "
                f"{frames} frames."
            )
        device = self.gaussians.means.device
        white = torch.ones(3, device=device) if background is None else background.to(device)
        images = []
        for i in range(max(frames, len(cameras))):
            frame, camera = min(i, frames - 1), min(i, len(cameras) - 1)
            one = cameras[camera : camera + 1].to(device)
            images.append(rasterize(self.gaussians[frame], one, backgrounds=white[None])[0])
        return torch.cat(images)

    def export(
        self,
        path: str | Path,
        cameras: Cameras | None = None,
        *,
        background: Tensor | None = None,
        fps: float = 25.0,
    ) -> None:
        """Writes the frames as pictures, or a single one as splats.

        Args:
            path: .gif and .mp4 are clips; a name without suffix is a folder of PNGs, new or empty;
                .ply, .splat, .spz and .glb hold the posed gaussians of the only frame.
            cameras: Of the pictures, as in `render`.
            background: As in `render`.
            fps: Of a clip, frames per second.

        Raises:
            ValueError: The suffix is no known format, or is one of splats and the frames are many.
        """
        path = Path(path)
        if not path.suffix:
            write_png_folder(self.render(cameras, background=background), path)
            return
        suffix = _find_suffix(path, (*CLIP_WRITERS, *SPLAT_WRITERS))
        if suffix in CLIP_WRITERS:
            frames = self.render(cameras, background=background)
            CLIP_WRITERS[suffix](frames, path, fps=fps)
            return
        if len(self) != 1:
            raise ValueError(
                f"A {suffix} holds one frame, got {len(self)}; export a clip, or animate one frame."
            )
        SPLAT_WRITERS[suffix](self.gaussians[0], path)


class Avatar:
    """A drivable head.

    Args:
        gaussians: In canonical space: zero pose, zero expression.
        bindings: The rig's face that each of them rides on. [N]
        rig: What moves them.
        betas: Identity coefficients of the person. [S]

    Example:
        >>> avatar = Avatar.from_pretrained("me/")
        >>> frames = avatar.animate(avatar.rig_params({"mouthSmile": 1.0})).render()
    """

    def __init__(self, gaussians: Gaussians, bindings: Tensor, rig: HeadRig, betas: Tensor) -> None:
        if gaussians.means.ndim != 2 or len(bindings) != len(gaussians):
            raise ValueError(
                "`gaussians` and `bindings` must hold the same N points, got "
                f"{tuple(gaussians.means.shape[:-1])} and {tuple(bindings.shape)}."
            )
        if betas.shape != (rig.num_betas,):
            raise ValueError(f"`betas` must have shape ({rig.num_betas},), got {betas.shape}.")
        check_bindings(bindings, rig.num_faces)
        self.gaussians, self.bindings, self.rig, self.betas = gaussians, bindings, rig, betas
        self._bound: tuple[tuple | None, SkinnedPoints | None] = (None, None)

    def __len__(self) -> int:
        """Number of gaussians."""
        return len(self.gaussians)

    def to(self, device: torch.device | str) -> Avatar:
        """The avatar on another device."""
        return Avatar(
            self.gaussians.to(device),
            self.bindings.to(device),
            self.rig.to(device),
            self.betas.to(device),
        )

    def rig_params(
        self,
        expression: dict[str, float] | None = None,
        *,
        num_frames: int = 1,
        **poses: list[float] | Tensor,
    ) -> RigParams:
        """Parameters by name, the same in every frame.

        Args:
            expression: Strength of named expressions, for instance `{"mouthSmile": 1.0}`.
            num_frames: T.
            **poses: Axis-angle in radians of `global_orient`, `neck_pose`, `jaw_pose`, `leye_pose`,
                `reye_pose`, or `transl` in metres; three numbers, or one row per frame.
        """
        params = self.rig.neutral(betas=self.betas.expand(num_frames, -1))
        fields = {name: getattr(params, name) for name in params.__dataclass_fields__}
        if expression:
            fields["expression"] = self.rig.expression(expression).expand(num_frames, -1)
        for name, value in poses.items():
            if name not in fields or name in ("betas", "expression"):
                raise ValueError(
                    f"`{name}` is no joint of the rig; it can be global_orient, "
                    "neck_pose, jaw_pose, leye_pose, reye_pose or transl."
                )
            fields[name] = torch.as_tensor(value).to(self.betas).expand(num_frames, 3)
        return RigParams(**fields)

    def _bound_points(self) -> SkinnedPoints:
        """The points with the attributes of their faces: kept, as it is half of a frame."""
        sources = (self.gaussians.means, self.bindings, self.betas, self.rig)
        known, bound = self._bound
        if known is None or any(a is not b for a, b in zip(known, sources, strict=True)):
            rest = self.rig.canonical_vertices(self.betas[None])[0]
            points = CanonicalPoints(self.gaussians.means, self.bindings)
            bound = bind_points(points, self.rig, rest)
            self._bound = (sources, bound)
        return bound

    def animate(
        self, rig_params: RigParams | None = None, *, mode: AnimationMode = "lbs"
    ) -> AnimatedAvatar:
        """The avatar in every frame; the identity stays its own.

        Args:
            rig_params: T frames of expression and pose, of this person or another; the default is
                one neutral frame.
            mode: How points follow the mesh.
        """
        rig_params = self.rig_params() if rig_params is None else rig_params
        self.rig.check_params(rig_params)
        fields = {name: getattr(rig_params, name) for name in rig_params.__dataclass_fields__}
        fields["betas"] = self.betas.expand(len(rig_params), -1)
        own = RigParams(**fields).to(self.betas.device)
        with torch.no_grad():
            bound = self._bound_points() if mode == "lbs" else None
            posed = animate_gaussians(
                self.gaussians, self.bindings, self.rig, own, mode=mode, bound=bound
            )
        return AnimatedAvatar(posed)

    def render(self, cameras: Cameras | None = None, *, background: Tensor | None = None) -> Tensor:
        """Pictures of the neutral avatar. [C, H, W, 3]"""
        return self.animate().render(cameras, background=background)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the avatar and its rig to a folder; `from_pretrained` reads it."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self.gaussians, name) for name in GAUSSIAN_FIELDS}
        tensors |= {"bindings": self.bindings, "betas": self.betas}
        self.rig.save_pretrained(folder / RIG_FOLDER)
        config = {"format_version": FORMAT_VERSION, "rig_class": type(self.rig).__name__}
        write_atomically(
            folder / GAUSSIANS_FILE,
            lambda path: save_file(
                {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path
            ),
        )
        # Last, so that a folder with a config is complete.
        write_atomically(
            folder / CONFIG_FILE, lambda path: path.write_text(json.dumps(config, indent=2))
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Avatar:
        """Reads an avatar that `save_pretrained` wrote.

        Raises:
            FileNotFoundError: The folder holds no avatar.
            ValueError: It is damaged, or was written by another version or for an unknown rig.
        """
        folder = Path(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise FileNotFoundError(f"`folder` must hold {CONFIG_FILE}, and {folder} does not.")
        config = json.loads((folder / CONFIG_FILE).read_text())
        if config.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"`format_version` must be {FORMAT_VERSION}, got {config.get('format_version')}: "
                "the avatar was written by another version of this package."
            )
        if config["rig_class"] not in RIG_CLASSES:
            known = ", ".join(RIG_CLASSES)
            raise ValueError(f"`rig_class` must be one of {known}, got {config['rig_class']}.")
        rig = RIG_CLASSES[config["rig_class"]].from_pretrained(folder / RIG_FOLDER)
        try:
            tensors = load_file(folder / GAUSSIANS_FILE)
        except SafetensorError as error:
            raise ValueError(f"{folder / GAUSSIANS_FILE} is damaged: {error}.") from error
        gaussians = Gaussians(**{name: tensors[name] for name in GAUSSIAN_FIELDS})
        return cls(gaussians, tensors["bindings"], rig, tensors["betas"])

    def export(self, path: str | Path, **options: object) -> None:
        """Writes the avatar in the format of the suffix.

        Args:
            path: .ply, .splat, .spz and .glb hold the canonical gaussians, for viewers of 3D
                Gaussian Splatting; .ga.ply is the point_cloud.ply of GaussianAvatars, its splats
                in the frames of the rig's triangles; .html is a page on which the avatar moves,
                see `exporters.html_page.write_page`.
            **options: Of the page: `title`, `motion`, `fps`.

        Raises:
            ValueError: The suffix is no known format, or the format has no options.
        """
        path = Path(path)
        suffix = _find_suffix(path, AVATAR_SUFFIXES)
        if options and suffix != PAGE:
            raise ValueError(f"A {suffix} has no options, got {', '.join(options)}.")
        if suffix == PAGE:
            write_page(self.gaussians, self.bindings, self.rig, self.betas, path, **options)
        elif suffix == BOUND:
            rest = self.rig.canonical_vertices(self.betas[None])[0]
            corners = rest[self.rig.faces[self.bindings]]
            splats = global_to_local(self.gaussians, self.bindings, corners)
            # The viewers of GaussianAvatars expect harmonics of degree 3.
            write_bound_ply(splats, path, sh_degree=3)
        else:
            SPLAT_WRITERS[suffix](self.gaussians, path)


def _find_suffix(path: Path, allowed: Collection[str]) -> str:
    """The suffix of the file's name, the longest that any format has."""
    for suffix in (*AVATAR_SUFFIXES, *CLIP_WRITERS):
        if path.name.endswith(suffix) and suffix in allowed:
            return suffix
        if path.name.endswith(suffix):
            break
    raise ValueError(f"`path` must end in one of {', '.join(allowed)}, got {path.name!r}.")

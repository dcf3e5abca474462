# SPDX-License-Identifier: Apache-2.0
"""Floor 4. An avatar: one person's canonical gaussians, tied to a rig that moves them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from .exporters.avatar_folder import AvatarParts, check_parts, load_avatar, save_avatar
from .exporters.clips import CLIP_SUFFIXES, PICTURES, check_clip, write_clip
from .exporters.frame_stream import show_progress
from .exporters.html_page import write_page
from .exporters.images import write_contact_sheet
from .exporters.ply import write_bound_ply
from .exporters.splat_formats import (
    SPLAT_OPTIONS,
    SPLAT_WRITERS,
    check_options,
    write_splat_folder,
)
from .exporters.write_targets import resolve_file
from .geometry.bound_splats import global_to_local
from .geometry.cameras import orbit_cameras
from .geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams, check_shape
from .publishing.artefacts import PREVIEW_FILE
from .publishing.download import AVATAR_PATTERNS, fetch_folder
from .publishing.guard import Terms
from .publishing.publication import Publication, Request, publish_folder
from .rendering import rasterize
from .rigs.binding import AnimationMode, animate_gaussians, bind_points
from .rigs.head_rig import HeadRig
from .rigs.skinning import SkinnedPoints

BOUND, PAGE = ".ga.ply", ".html"
# The longer of two that fit comes first.
AVATAR_SUFFIXES = (BOUND, *SPLAT_WRITERS, PAGE)
OPTIONS = {
    **SPLAT_OPTIONS,
    BOUND: ("sh_degree",),
    PAGE: ("title", "motion", "fps"),
}


class AnimatedAvatar:
    """An avatar in T frames; each is posed when it is asked for.

    Args:
        pose: Makes the Gaussians of one frame. [N]
        num_frames: T.
    """

    def __init__(self, pose: Callable[[int], Gaussians], num_frames: int) -> None:
        self._pose, self._num_frames = pose, num_frames
        self._gaussians: Gaussians | None = None

    def __len__(self) -> int:
        return self._num_frames

    @property
    def gaussians(self) -> Gaussians:
        """All frames at once, which takes memory. [T, N]"""
        if self._gaussians is None:
            frames = [self._pose(frame) for frame in range(len(self))]
            names = Gaussians.__dataclass_fields__
            stacked = {name: torch.stack([getattr(f, name) for f in frames]) for name in names}
            self._gaussians = Gaussians(**stacked)
        return self._gaussians

    def frames(
        self, cameras: Cameras | None = None, *, background: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The pictures of `render`, one by one as they are asked for. C times [H, W, 3]"""
        cameras = orbit_cameras([0.0]) if cameras is None else cameras
        if len(self) != len(cameras) and 1 not in (len(self), len(cameras)):
            raise ValueError(
                f"`cameras` must be one, or one per frame: got {len(cameras)} cameras for "
                f"{len(self)} frames."
            )
        if background is not None:
            check_shape("background", background, (3,))
            if not background.isfinite().all():
                raise ValueError(f"`background` must be sRGB in [0, 1], got {background.tolist()}.")
        return self._draw(cameras, background)

    def _draw(self, cameras: Cameras, background: Tensor | None) -> Iterator[Tensor]:
        paper = torch.ones(3) if background is None else background
        gaussians = self._pose(0)
        device = gaussians.means.device
        for i in range(max(len(self), len(cameras))):
            if 0 < i < len(self):
                gaussians = self._pose(i)
            camera = min(i, len(cameras) - 1)
            one = cameras[camera : camera + 1].to(device)
            yield rasterize(gaussians, one, backgrounds=paper.to(device)[None])[0][0]

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
        return torch.stack(list(self.frames(cameras, background=background)))

    def export(
        self,
        path: str | Path,
        cameras: Cameras | None = None,
        *,
        background: Tensor | None = None,
        fps: float = 25.0,
        frame_format: str = PICTURES,
        **options: object,
    ) -> None:
        """Writes the frames as pictures or splats, each as it is made.

        Args:
            path: .gif and .mp4 are clips; a name without suffix is a folder, new or empty, with a
                file per frame; .ply, .splat, .spz and .glb hold the posed gaussians of the only
                frame.
            cameras: Of the pictures, as in `render`.
            background: As in `render`.
            fps: Of a clip, frames per second.
            frame_format: Of the files in a folder: .png, or one of splats, for instance .ply.
            **options: Of a format of splats, as in `Avatar.export`.

        Raises:
            ValueError: The suffix is no known format, or is one of splats and the frames are many.
            OSError: The target cannot be written.
        """
        path = Path(path)
        suffix = _find_suffix(path, (*CLIP_SUFFIXES, *SPLAT_WRITERS)) if path.suffix else ""
        if suffix in SPLAT_WRITERS:
            check_options(suffix, options)
            if len(self) != 1:
                raise ValueError(
                    f"A {suffix} holds one frame, got {len(self)}; export a clip, animate one "
                    f"frame, or name a folder and `frame_format={suffix!r}`."
                )
            SPLAT_WRITERS[suffix](self._pose(0), path, **options)
            return
        cameras = orbit_cameras([0.0]) if cameras is None else cameras
        view = {"width": cameras.width, "height": cameras.height}
        check_clip(path, **view, fps=fps, frame_format=frame_format)
        if frame_format in SPLAT_WRITERS:
            check_options(frame_format, options)
            posed = (self._pose(frame) for frame in range(len(self)))
            posed = show_progress(posed, len(self), path.name)
            write_splat_folder(posed, path, frame_format, options)
            return
        check_options(suffix or PICTURES, options, ())
        frames = self.frames(cameras, background=background)
        count = max(len(self), len(cameras))
        write_clip(show_progress(frames, count, path.name), path, fps=fps)


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
        check_parts(AvatarParts(gaussians, bindings, rig, betas))
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
        is_new = known is None or any(a is not b for a, b in zip(known, sources, strict=True))
        if bound is None or is_new:
            rest = self.rig.canonical_vertices(self.betas[None])[0]
            points = CanonicalPoints(self.gaussians.means, self.bindings)
            bound = bind_points(points, self.rig, rest)
            self._bound = (sources, bound)
        return bound

    def animate(
        self,
        rig_params: RigParams | None = None,
        *,
        mode: AnimationMode = "lbs",
        stretch: bool = True,
    ) -> AnimatedAvatar:
        """The avatar in every frame; the identity stays its own.

        Args:
            rig_params: T frames of expression and pose, of this person or another; the default is
                one neutral frame.
            mode: How points follow the mesh.
            stretch: Whether splats grow with the skin below them. The paper's do not, and leave
                gaps beside a mouth that opens.
        """
        rig_params = self.rig_params() if rig_params is None else rig_params
        self._check_motion(rig_params)
        if mode not in get_args(AnimationMode):
            raise ValueError(f"`mode` must be 'lbs' or 'triangle', got {mode!r}.")
        fields = {name: getattr(rig_params, name) for name in rig_params.__dataclass_fields__}
        fields["betas"] = self.betas.expand(len(rig_params), -1)
        own = RigParams(**fields).to(self.betas.device)
        gaussians, bindings, rig = self.gaussians, self.bindings, self.rig
        with torch.no_grad():
            bound = self._bound_points() if mode == "lbs" else None

        def pose(frame: int) -> Gaussians:
            one = own[frame : frame + 1]
            with torch.no_grad():
                posed = animate_gaussians(
                    gaussians, bindings, rig, one, mode=mode, bound=bound, stretch=stretch
                )
            return posed[0]

        return AnimatedAvatar(pose, len(own))

    def _check_motion(self, rig_params: RigParams) -> None:
        """Refuses parameters of another rig, or such that are none."""
        self.rig.check_params(rig_params)
        if len(rig_params) == 0:
            raise ValueError("`rig_params` must hold at least one frame, got none.")
        for name in rig_params.__dataclass_fields__:
            is_finite = getattr(rig_params, name).isfinite().all(dim=-1)
            if name != "betas" and not is_finite.all():
                frame = int((~is_finite).nonzero()[0])
                raise ValueError(
                    f"`rig_params` must be finite, and `{name}` is not in frame {frame}; leave "
                    "that frame out, or fill it."
                )

    def render(self, cameras: Cameras | None = None, *, background: Tensor | None = None) -> Tensor:
        """Pictures of the neutral avatar. [C, H, W, 3]"""
        return self.animate().render(cameras, background=background)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the avatar and its rig to a folder; `from_pretrained` reads it.

        Splats with a value that is not finite are left out, and counted in the log.

        Raises:
            BlockingIOError: Another process is writing the same folder.
            OSError: The folder cannot be written.
        """
        parts = AvatarParts(self.gaussians, self.bindings, self.rig, self.betas)
        save_avatar(parts, save_directory)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: object) -> Avatar:
        """Reads an avatar that `save_pretrained` wrote, or `push_to_hub` published.

        Args:
            folder: Or a Hub id, where there is no such folder.
            **options: Of the Hub: `revision`, `cache_dir`, `local_files_only`, `token`.

        Raises:
            FileNotFoundError: The folder holds no avatar, or there is no way to the Hub.
            ValueError: It is damaged, or was written by another version or for an unknown rig.
        """
        place = fetch_folder(folder, AVATAR_PATTERNS, **options)  # ty: ignore[invalid-argument-type]
        return cls(*load_avatar(place))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        rights: str | None = None,
        preview: bool = True,
        **options: object,
    ) -> Publication:
        """Publishes the avatar with a card; `from_pretrained` reads it by its id.

        Args:
            repo_id: user/name; made where there is none.
            licence: As the Hub names it, for instance cc-by-4.0.
            rights: Who it is and that they agreed, in a sentence, which is published too. Without,
                nothing is sent: a head may be that of a real person.
            preview: Whether the card shows a picture.
            **options: `private`, `token`, `commit_message`, `create_pr`, `dry_run`.

        Raises:
            ValueError: It may not be published; the message says why, and what to do.
            OSError: The Hub refused it, or was not reached.
        """
        terms = Terms(licence, rights)
        request = Request(repo_id, terms, **options)  # ty: ignore[invalid-argument-type]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.save_pretrained(folder)
            if preview:
                write_contact_sheet(self.render(), Path(folder) / PREVIEW_FILE)
            return publish_folder(folder, request)

    def export(self, path: str | Path, **options: object) -> None:
        """Writes the avatar in the format of the suffix.

        Args:
            path: .ply, .splat, .spz and .glb hold the canonical gaussians, for viewers of 3D
                Gaussian Splatting; .ga.ply is the point_cloud.ply of GaussianAvatars, its splats
                in the frames of the rig's triangles; .html is a page on which the avatar moves,
                see `exporters.html_page.write_page`.
            **options: Of a .ply: `sh_degree`, 0 to 3, of the harmonics (zeros beyond the colour),
                and `y_down`, for viewers that expect the axes of COLMAP. Of a .splat: `y_down`. Of
                an .spz: `version`, 2 or 3. Of a .ga.ply: `sh_degree`. Of the page: `title`,
                `motion`, `fps`.

        Raises:
            ValueError: The suffix is no known format, or the format has no such option.
            OSError: The target cannot be written.
        """
        path = Path(path)
        suffix = _find_suffix(path, AVATAR_SUFFIXES)
        check_options(suffix, options, OPTIONS[suffix])
        resolve_file(path)
        if suffix == PAGE:
            parts = (self.gaussians, self.bindings, self.rig, self.betas)
            write_page(*parts, path, **options)  # ty: ignore[invalid-argument-type]
        elif suffix == BOUND:
            rest = self.rig.canonical_vertices(self.betas[None])[0]
            corners = rest[self.rig.faces[self.bindings]]
            splats = global_to_local(self.gaussians, self.bindings, corners)
            # The viewers of GaussianAvatars expect harmonics of degree 3.
            options = {"sh_degree": 3, **options}
            write_bound_ply(splats, path, **options)
        else:
            SPLAT_WRITERS[suffix](self.gaussians, path, **options)


def _find_suffix(path: Path, allowed: Collection[str]) -> str:
    """The suffix of the file's name, the longest that any format has."""
    for suffix in (*AVATAR_SUFFIXES, *CLIP_SUFFIXES):
        if path.name.endswith(suffix) and suffix in allowed:
            return suffix
        if path.name.endswith(suffix):
            break
    raise ValueError(f"`path` must end in one of {', '.join(allowed)}, got {path.name!r}.")

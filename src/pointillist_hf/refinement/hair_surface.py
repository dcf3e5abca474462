# SPDX-License-Identifier: Apache-2.0
"""The outside of the hair, or of a hat: a star-shaped surface around the skull.

In every direction from the middle of the skull it lies some thickness outside of the rig's skin.
The outline in the photograph says how much at the rim; in front hair is thin; behind, and where
nothing is seen, rim and outline are carried on. All in the pose of the photograph, metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, pad

from ..geometry.cameras import project_points
from ..geometry.structures import Cameras, TensorRecord
from ..geometry.triangles import triangle_frames
from ..rigs.head_rig import HeadRig
from .face_kinds import FaceKinds, PointKind
from .mesh_pictures import at_pixels, draw_mesh, draw_rig, is_in_frame
from .neighbors import nearest_points
from .portrait_view import BROWS, PortraitView

NUM_POLAR, NUM_AZIMUTH = 96, 192
POLAR_END = math.radians(148)  # from the crown down to the nape and the collar
CENTRE = (0.0, 0.012, -0.085)  # from the middle of the eyeballs, in the axes of the head
LARGEST_RADIUS = 0.16  # of the skin: beyond are shoulders
MAX_THICKNESS, NUM_STEPS = 0.07, 36
FRONT_THICKNESS, LEAST, MOST_BEHIND = 0.010, 0.002, 0.03
NUM_RIM_BINS, RIM = 72, 0.25  # directions this near to the image plane make the outline
SEEN_TOLERANCE = 0.004
NASION, NOSE_TIP = 168, 1  # landmarks
HANGING, EAR = 0.05, 0.008  # least areas of hair and of an ear, in squared eye distances
TEMPLE_FACING = 0.45  # cosine to the camera: less, beside the scalp, says nothing of hair
EARS = -0.005  # metres in front of the centre; what lies farther in front is a temple or a cheek
NAPE = 0.4  # of its thickness, on the scalp behind, below where hair is seen to end


@dataclass(frozen=True)
class HairSurface(TensorRecord):
    """Fields over the directions from the middle of the skull."""

    centre: Tensor  # [3]
    axes: Tensor  # [3, 3] columns: to the subject's left, up, forward
    radii: Tensor  # [T, P] of the surface
    skin_radii: Tensor  # [T, P] of the skin below
    hairiness: Tensor  # [T, P] in [0, 1]: how surely there is hair
    is_trusted: Tensor  # [T, P] above the scalp, or turned to the camera

    def places(self) -> Tensor:
        """The surface in the world. [T, P, 3]"""
        return self.centre + self.radii[..., None] * (direction_grid() @ self.axes.T)

    def trusted_triangles(self) -> Tensor:
        """Those of `triangles` whose hair a photograph of the rim can show. [K, 3]"""
        triangles = self.triangles()
        return triangles[self.is_trusted.flatten()[triangles].all(1)]

    def triangles(self) -> Tensor:
        """Of `places`, flattened. [K, 3]"""
        ids = torch.arange(NUM_POLAR * NUM_AZIMUTH).reshape(NUM_POLAR, NUM_AZIMUTH)
        right = ids.roll(-1, 1)
        upper = torch.stack([ids[:-1], ids[1:], right[1:]], -1)
        lower = torch.stack([ids[:-1], right[1:], right[:-1]], -1)
        return torch.cat([upper.flatten(0, 1), lower.flatten(0, 1)])

    def look_up(self, field: Tensor, directions: Tensor) -> Tensor:
        """A field [T, P] at unit directions in the axes of the head [N, 3]. [N]"""
        polar = torch.arccos(directions[:, 1].clamp(-1, 1)) / POLAR_END * NUM_POLAR - 0.5
        azimuth = torch.atan2(directions[:, 0], directions[:, 2])
        azimuth = (azimuth + math.pi) / (2 * math.pi) * NUM_AZIMUTH
        polar = polar.clamp(0, NUM_POLAR - 1.001)
        row, column = polar.floor().long(), azimuth.floor().long()
        u, v = azimuth - column, polar - row
        left, right = column % NUM_AZIMUTH, (column + 1) % NUM_AZIMUTH
        above = torch.lerp(field[row, left], field[row, right], u)
        below = torch.lerp(field[row + 1, left], field[row + 1, right], u)
        return torch.lerp(above, below, v)


def direction_grid() -> Tensor:
    """Unit directions in the axes of the head, from the crown down. [T, P, 3]"""
    polar = (torch.arange(NUM_POLAR) + 0.5)[:, None] / NUM_POLAR * POLAR_END
    azimuth = torch.arange(NUM_AZIMUTH)[None] / NUM_AZIMUTH * 2 * math.pi - math.pi
    x, z = polar.sin() * azimuth.sin(), polar.sin() * azimuth.cos()
    return torch.stack([x, polar.cos().expand_as(x), z], dim=-1)


@torch.no_grad()
def build_hair_surface(
    view: PortraitView,
    rig: HeadRig,
    face_kinds: FaceKinds,
    pixel_kinds: Tensor,
    skin: Tensor,
) -> HairSurface:
    """The surface that one photograph suggests.

    Args:
        view: The photograph.
        rig: Fitted to it.
        face_kinds: Of the rig.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]
        skin: Posed points of the outer skin of head and neck, metres. [K, 3]
    """
    centre, axes = _head_frame(view, rig, face_kinds)
    directions = direction_grid() @ axes.T
    skin_radii = _skin_radii(centre, directions, skin)
    outline = _outline_thickness(view, centre, directions, skin_radii)
    shows_hair = find_hair_pixels(view, pixel_kinds)
    rim = _measure_rim(view, centre, directions, skin_radii, outline, shows_hair)
    thickness = _spread_thickness(view, centre, directions, outline, rim)
    radii = skin_radii + thickness
    on_scalp, facing = _find_scalp(view, rig, face_kinds, centre, axes)
    # At the rim the photograph looks past the temples: what it shows there hangs on the scalp.
    left_hangs, right_hangs = find_hanging_sides(view, rig, face_kinds, pixel_kinds)
    hangs = torch.where(direction_grid()[..., 0] > 0, left_hangs, right_hangs)
    trusted = (on_scalp > 0.5) | (facing > TEMPLE_FACING) | hangs
    surface = HairSurface(centre, axes, radii, skin_radii, torch.ones_like(radii), trusted)
    hairiness = _spread_hair(view, rig, surface, shows_hair)
    # Towards its edge hair comes down to the skin, else it would stand off like a helmet.
    falling = smooth_step((hairiness - 0.35) / 0.4)
    scalp = _scalp_share(view, rig, face_kinds, shows_hair) * on_scalp
    behind = smooth_step(-direction_grid()[..., 2] / 0.3)
    falling = torch.maximum(falling, NAPE * scalp * behind)
    hairiness = torch.maximum(hairiness, scalp)
    radii = skin_radii + LEAST + (thickness - LEAST).clamp_min(0) * falling
    return HairSurface(centre, axes, radii, skin_radii, hairiness, trusted)


def smooth_step(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, smooth between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def _head_frame(view: PortraitView, rig: HeadRig, face_kinds: FaceKinds) -> tuple[Tensor, Tensor]:
    """The middle of the skull [3] and the axes of the head, columns [3, 3], in the pose."""
    motion = rig.joint_motion(view.rig_params)
    axes = motion.transforms[0, 1, :, :3]  # of the neck: head and skull turn with it
    vertices = rig(view.rig_params)[0]
    eyes = rig.faces[face_kinds.kinds == PointKind.EYE].unique()
    if len(eyes):
        middle = vertices[eyes].mean(0)
    else:
        middle = vertices[rig.faces[face_kinds.is_anchor].unique()].mean(0)
    return middle + axes @ middle.new_tensor(CENTRE), axes


def _skin_radii(centre: Tensor, directions: Tensor, skin: Tensor) -> Tensor:
    """Distance of the skin from the centre in each direction, metres. [T, P]"""
    offset = skin - centre
    radius = offset.norm(dim=-1)
    distances, found = nearest_points(
        directions.flatten(0, 1), offset / radius[:, None].clamp_min(1e-6), 6
    )
    weights = 1 / (distances + 0.01).square()
    radii = (radius[found] * weights).sum(1) / weights.sum(1)
    return blur_directions(radii.reshape(directions.shape[:2]), 1.2).clamp(max=LARGEST_RADIUS)


def blur_directions(field: Tensor, sigma: float) -> Tensor:
    """A field over the directions, smoothed; azimuth wraps around. [T, P] -> [T, P]"""
    reach = max(1, round(3 * sigma))
    bell = torch.exp(-(torch.arange(-reach, reach + 1).float() / sigma).square() / 2)
    bell = bell / bell.sum()
    wide = pad(field[None, None], (reach, reach, 0, 0), mode="circular")
    wide = pad(wide, (0, 0, reach, reach), mode="replicate")
    return conv2d(conv2d(wide, bell[None, None, None]), bell[None, None, :, None])[0, 0]


def _outline_thickness(
    view: PortraitView, centre: Tensor, directions: Tensor, skin_radii: Tensor
) -> Tensor:
    """How far outside the skin the subject may reach without leaving the matte, metres. [T, P]"""
    steps = torch.linspace(0, MAX_THICKNESS, NUM_STEPS)
    reach = skin_radii[..., None] + steps
    places = centre + directions[..., None, :] * reach[..., None]
    pixels, _ = project_points(places.reshape(-1, 3), view.cameras)
    inside = _shows(view.matte > 0.5, pixels[0], view.cameras).reshape(*skin_radii.shape, NUM_STEPS)
    inside[..., 0] = True
    run = inside.long().cumprod(-1).sum(-1) - 1
    return steps[run]


def _shows(mask: Tensor, pixels: Tensor, cameras: Cameras) -> Tensor:
    """Whether the mask is set at the pixels; not outside the frame. [N]"""
    return is_in_frame(pixels, cameras) & at_pixels(mask, pixels)


def find_hair_pixels(view: PortraitView, pixel_kinds: Tensor) -> Tensor:
    """Pixels of hair; above the brows everything but skin counts, as hats do. [H, W]"""
    rows = torch.arange(len(pixel_kinds))[:, None]
    above = rows < view.landmarks[list(BROWS), 1].mean()
    other = (pixel_kinds >= 0) & (pixel_kinds != PointKind.SKIN)
    return (pixel_kinds == PointKind.HAIR) | (above & other)


def find_hanging_sides(
    view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, pixel_kinds: Tensor
) -> Tensor:
    """Whether hair hangs beside the face, lower than the tops of the ears. [2] left, right

    Not where an ear shows: hair lies behind it.
    """
    middle, nose = view.landmarks[NASION], view.landmarks[NOSE_TIP]
    rows = torch.arange(len(pixel_kinds))[:, None]
    low = (pixel_kinds == PointKind.HAIR) & (rows > (middle[1] + nose[1]) / 2)
    is_left = torch.arange(pixel_kinds.shape[1]) > middle[0]
    _, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    ear = face_kinds.is_ear[face_ids.clamp_min(0)] & (face_ids >= 0)
    bare = ear & (pixel_kinds == PointKind.SKIN)

    def count(mask: Tensor) -> Tensor:
        return torch.stack([(mask & is_left).sum(), (mask & ~is_left).sum()])

    shows_ear = count(bare) > (count(ear) / 2).clamp_min(EAR * view.eye_distance**2)
    return (count(low) > HANGING * view.eye_distance**2) & ~shows_ear


@dataclass(frozen=True)
class _Rim:
    """The outline by angle in the image plane."""

    thickness: Tensor  # [T, P] at each direction's angle
    mean: float  # where it shows hair
    is_near: Tensor  # [T, P] how much a direction belongs to the rim, in [0, 1]


def _measure_rim(
    view: PortraitView,
    centre: Tensor,
    directions: Tensor,
    skin_radii: Tensor,
    outline: Tensor,
    shows_hair: Tensor,
) -> _Rim:
    toward = _viewing_direction(view, centre)
    along = directions @ toward
    in_plane = directions - along[..., None] * toward
    right, down = view.cameras.viewmats[0, 0, :3], view.cameras.viewmats[0, 1, :3]
    angle = torch.atan2(in_plane @ down, in_plane @ right)
    bins = ((angle + math.pi) / (2 * math.pi) * NUM_RIM_BINS).long() % NUM_RIM_BINS
    at_rim = along.abs() < RIM
    places = centre + directions * (skin_radii + (outline - 0.004).clamp_min(0))[..., None]
    hair = _shows(
        shows_hair, project_points(places.reshape(-1, 3), view.cameras)[0][0], view.cameras
    )
    hair = hair.reshape(at_rim.shape)
    thickness, share = torch.zeros(NUM_RIM_BINS), torch.zeros(NUM_RIM_BINS)
    for index in range(NUM_RIM_BINS):
        own = at_rim & (bins == index)
        if own.any():
            thickness[index] = outline[own].median()
            share[index] = hair[own].float().mean()
    thickness = (thickness.roll(1) + thickness + thickness.roll(-1)) / 3
    hairy = share > 0.5
    place = (angle + math.pi) / (2 * math.pi) * NUM_RIM_BINS - 0.5
    low = place.floor().long()
    at_angle = torch.lerp(
        thickness[low % NUM_RIM_BINS], thickness[(low + 1) % NUM_RIM_BINS], place - low
    )
    mean = float(thickness[hairy].mean()) if hairy.any() else 0.0
    return _Rim(at_angle, mean, smooth_step((in_plane.norm(dim=-1) - 0.55) / 0.4))


def _viewing_direction(view: PortraitView, centre: Tensor) -> Tensor:
    """From the camera to the centre. [3]"""
    rotation, shift = view.cameras.viewmats[0, :3, :3], view.cameras.viewmats[0, :3, 3]
    return normalize(centre + shift @ rotation, dim=0)


def _spread_thickness(
    view: PortraitView, centre: Tensor, directions: Tensor, outline: Tensor, rim: _Rim
) -> Tensor:
    """Thickness of the hair if there is hair, metres. [T, P]"""
    in_front = directions @ _viewing_direction(view, centre) < 0
    front = min(FRONT_THICKNESS, max(rim.mean, 0.003))
    behind = min(max(rim.mean, 0.004), MOST_BEHIND)
    inner = torch.where(in_front, front, behind)
    thickness = torch.lerp(inner, rim.thickness, rim.is_near)
    thickness = blur_directions(torch.minimum(thickness, outline), 1.5)
    return torch.minimum(thickness, outline).clamp_min(LEAST)


def _spread_hair(
    view: PortraitView, rig: HeadRig, surface: HairSurface, shows_hair: Tensor
) -> Tensor:
    """How surely each direction has hair: as seen, and as its neighbours are seen. [T, P]"""
    places = surface.places().reshape(-1, 3)
    pixels, depths = project_points(places, view.cameras)
    nearest = _draw_nearest(view, rig, surface)
    gap = depths[0] - at_pixels(nearest, pixels[0])
    in_matte = _shows(view.matte > 0.5, pixels[0], view.cameras)
    seen = in_matte & (gap < SEEN_TOLERANCE) & surface.is_trusted.flatten()
    hair = _shows(shows_hair, pixels[0], view.cameras).float()
    if not seen.any():
        return torch.zeros(NUM_POLAR, NUM_AZIMUTH)
    local = (places - surface.centre) @ surface.axes
    # Hair ends at about one height all around; how far back it is says less.
    key = local * local.new_tensor([0.7, 1.5, 0.6])
    known = seen.nonzero()[:, 0]
    known = torch.cat([known, known])
    mirrored = key[known[: len(known) // 2]] * key.new_tensor([-1.0, 1.0, 1.0])
    sources = torch.cat([key[known[: len(known) // 2]], mirrored])
    lacking = (~seen).nonzero()[:, 0]
    temple = (local[:, 2] > EARS) & ~surface.is_trusted.flatten()
    # But a temple is like the cheek beside it.
    hair[temple & ~seen] = 0
    asking = lacking[~temple[lacking]]
    distances, found = nearest_points(key[asking], sources, 12)
    weights = 1 / (distances + 0.004)
    hair[asking] = (hair[known][found] * weights).sum(1) / weights.sum(1)
    return blur_directions(hair.reshape(NUM_POLAR, NUM_AZIMUTH), 1.2)


def _find_scalp(
    view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, centre: Tensor, axes: Tensor
) -> tuple[Tensor, Tensor]:
    """Which directions lie above the scalp, and how their skin faces the camera. [T, P] each"""
    outer = (face_kinds.is_scalp | face_kinds.is_anchor).nonzero()[:, 0]
    frames, places, _ = triangle_frames(rig(view.rig_params)[0][rig.faces[outer]])
    around = normalize((places - centre) @ axes, dim=-1)
    _, found = nearest_points(direction_grid().flatten(0, 1), around, 1)
    facing = -(frames[..., 1] @ _viewing_direction(view, centre))
    fields = (face_kinds.is_scalp[outer].float(), facing)
    on_scalp, facing = (
        blur_directions(field[found[:, 0]].reshape(NUM_POLAR, NUM_AZIMUTH), 1.2) for field in fields
    )
    return on_scalp, facing


def _scalp_share(view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, hair: Tensor) -> Tensor:
    """Of the visible pixels of the scalp, how many show hair. []"""
    _, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    shown = (face_ids >= 0) & face_kinds.is_scalp[face_ids.clamp_min(0)] & (view.matte > 0.5)
    return hair[shown].float().mean() if shown.any() else torch.tensor(0.0)


def _draw_nearest(view: PortraitView, rig: HeadRig, surface: HairSurface) -> Tensor:
    """Depth of head and hair in the photograph, metres; inf where neither is. [H, W]"""
    skin, _ = draw_rig(rig, view.rig_params, view.cameras)
    hair, _ = draw_mesh(surface.places().reshape(-1, 3), surface.triangles(), view.cameras)
    return torch.minimum(skin, hair)

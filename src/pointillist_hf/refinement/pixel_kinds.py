# SPDX-License-Identifier: Apache-2.0
"""What each pixel of a portrait shows, told by the colours of places where that is known."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from ..portraits.portrait import CHIN, FOREHEAD
from ..rigs.head_rig import HeadRig
from .distance_maps import blur_picture, grow_mask, label_parts, nearest_pixels, shrink_mask
from .face_kinds import FaceKinds, PointKind
from .mesh_pictures import draw_rig
from .portrait_view import PortraitView

NUM_COLORS = 4  # of each kind: hair has lights and shades, cloth has patterns
FEW, MAX_SEEDS = 10 * NUM_COLORS, 4000  # pixels that say nothing of a kind; that are enough
LITTLE = 0.06  # of clothes, in squared distances of the outer canthi
SURE_SKIN = 0.97  # quantile of the cost of skin on surely skin: dearer pixels may be cloth
# Distance in L*a*b* of a bald scalp from cheeks, at most; share of it beside the rig, at most.
BALD, FLAT = 15.0, 0.25
NASION, NOSE_TIP, EYE_CORNERS = 168, 1, ((33, 133), (362, 263))
# Outer ends, upper and lower, then inner ones; corners of the mouth, then upper and lower lip.
BROW_ENDS, LIPS = ((70, 46, 107, 55), (300, 276, 336, 285)), (61, 291, 0, 17)
SHADOW = 3  # pixels; lines thinner than twice that are shadows rather than hair
LIMB = 6.0  # pixels of a frame of 384 inside the outline of the rig, where a line may be hair
# What speaks against skin beside the rig: per distance of the outer canthi, from where on, at most.
BESIDE, NEAR, MOST_BESIDE = 12.0, 0.1, 3.0
KINDS = (PointKind.SKIN, PointKind.HAIR, PointKind.CLOTH)


@torch.no_grad()
def classify_pixels(view: PortraitView, rig: HeadRig, face_kinds: FaceKinds) -> Tensor:
    """`PointKind` SKIN, HAIR or CLOTH of each pixel of the subject, -1 elsewhere. [H, W]"""
    lab = srgb_to_lab(blur_picture(view.foreground, 0.7))
    subject = view.matte > 0.5
    seeds = _find_seeds(view, rig, face_kinds) & subject[..., None]
    cost = torch.full((*subject.shape, len(KINDS)), torch.inf)
    on_mesh = draw_rig(rig, view.rig_params, view.cameras)[0].isfinite()
    for column, kind in enumerate(KINDS):
        own = seeds[..., column]
        of_skin = cost[..., 0][seeds[..., 0]]
        if kind == PointKind.HAIR and _is_bald(view, lab, seeds, on_mesh):
            own = own & (cost[..., 0] > of_skin.quantile(SURE_SKIN))
        if kind == PointKind.CLOTH:
            # Below the chin there may be skin as well.
            own = own & (cost[..., 0] > of_skin.quantile(SURE_SKIN))
        samples = lab[own]
        if len(samples) >= FEW:
            cost[..., column] = _mixture_cost(lab, _spread(samples))
    cost = blur_picture(cost.clamp(max=60), 1.0) + _place_cost(view, on_mesh)
    kinds = torch.tensor([int(kind) for kind in KINDS])[cost.argmin(-1)]
    kinds = torch.where(seeds[..., 0], int(PointKind.SKIN), kinds)
    kinds = torch.where(subject, kinds, -1)
    # Beside the rig there is no skin to be in shadow; what looks thin there is hair behind a cheek.
    high = torch.arange(len(kinds))[:, None] < float(view.landmarks[NOSE_TIP, 1])
    limb = ~shrink_mask(on_mesh, max(1, round(LIMB * len(kinds) / 384)))
    kinds = _drop_shadows(kinds, seeds[..., 1], ~on_mesh | (limb & high))
    features = _find_eyes(view) | _find_brows(view, kinds)
    kinds = torch.where(features, int(PointKind.SKIN), kinds)
    return torch.where(subject, kinds, -1)


def _is_bald(view: PortraitView, lab: Tensor, seeds: Tensor, on_mesh: Tensor) -> bool:
    """Whether the scalp has the colour of nose and cheeks, and nothing stands off it.

    Beards and sunglasses have the colour of some hair, and do not count.
    """
    skin, scalp = seeds[..., 0], seeds[..., 1]
    above_lips = torch.arange(len(skin))[:, None] < float(view.landmarks[LIPS[2], 1])
    cheeks = skin & above_lips & ~_find_eyes(view, scale=1.8)
    if not scalp.any() or not cheeks.any():
        return False
    gap = (lab[scalp].median(0).values - lab[cheeks].median(0).values).norm()
    return float(gap) < BALD and int((scalp & ~on_mesh).sum()) < FLAT * int(scalp.sum())


def _find_eyes(view: PortraitView, scale: float = 1.0) -> Tensor:
    """Both eyes with their lids: dark as hair, and nothing may lie on them. [H, W]"""
    near = torch.zeros_like(view.inside)
    for corners in EYE_CORNERS:
        places = view.landmarks[list(corners)]
        near |= _ellipse(view, *places, wide=0.65 * scale, high=0.42 * scale)
    return near


def _find_brows(view: PortraitView, kinds: Tensor) -> Tensor:
    """Brows, but those that hang on a fringe: they look like hair, but lie on skin. [H, W]"""
    near = torch.zeros_like(view.inside)
    for ends in BROW_ENDS:
        first, second = view.landmarks[list(ends)].reshape(2, 2, 2).mean(1)
        brow = _ellipse(view, first, second, wide=0.62, high=0.26)
        up = 0.55 * (second - first).norm() * view.landmarks.new_tensor([0.0, -1.0])
        above = _ellipse(view, first + up, second + up, wide=0.62, high=0.26)
        if (kinds[above] == PointKind.HAIR).float().mean() < 0.5:
            near |= brow
    return near


def _find_mouth(view: PortraitView) -> Tensor:
    """The lips and what is between them. [H, W]"""
    first, second, upper, lower = view.landmarks[list(LIPS)]
    high = float((upper - lower).norm() / (first - second).norm())
    return _ellipse(view, first, second, wide=0.55, high=0.6 * high)


def _ellipse(
    view: PortraitView, first: Tensor, second: Tensor, *, wide: float, high: float
) -> Tensor:
    """Pixels around the line between two places [2], half axes in its lengths. [H, W]"""
    rows, columns = (torch.arange(size) + 0.5 for size in view.matte.shape)
    middle, along = (first + second) / 2, second - first
    length = along.norm()
    along = along / length
    x, y = columns[None] - middle[0], rows[:, None] - middle[1]
    u, v = x * along[0] + y * along[1], y * along[0] - x * along[1]
    return (u / (wide * length)).square() + (v / (high * length)).square() < 1


def _drop_shadows(kinds: Tensor, seeds: Tensor, no_shadow: Tensor) -> Tensor:
    """Dark lines under a jaw look like hair, but they are thin or hang on no hair. [H, W]"""
    hair = kinds == PointKind.HAIR
    core = label_parts(shrink_mask(hair, SHADOW) | (hair & no_shadow))
    rooted = torch.isin(core, core[seeds & (core > 0)].unique()) & (core > 0)
    kept = grow_mask(rooted, SHADOW + 1) & hair
    others = torch.where(hair, -1, kinds)
    _, nearest = nearest_pixels(others >= 0)
    return torch.where(hair & ~kept, others.flatten()[nearest], kinds)


def _find_seeds(view: PortraitView, rig: HeadRig, face_kinds: FaceKinds) -> Tensor:
    """Pixels that are surely skin, hair and cloth. [H, W, 3]"""
    height, width = view.matte.shape
    _, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    rows = torch.arange(height)[:, None].expand(height, width) + 0.5
    on_mesh = face_ids >= 0
    shown = face_kinds.kinds[face_ids.clamp_min(0)]
    brow, chin = view.landmarks[NASION, 1], view.landmarks[CHIN, 1]
    columns = torch.arange(width)[None] + 0.5
    middle_column = view.landmarks[NASION, 0]
    middle = (columns - middle_column).abs() < 0.42 * view.eye_distance
    skin = on_mesh & (shown == PointKind.SKIN) & middle & (rows > brow) & (rows < chin)
    skin &= ~(_find_eyes(view) | _find_mouth(view))
    top = _project_scalp_line(view, rig, face_kinds)
    hair = (on_mesh & (shown == PointKind.HAIR)) | (~on_mesh & (rows < top))
    cloth = rows > chin + 0.45 * view.eye_distance
    if int((cloth & (view.matte > 0.5)).sum()) < LITTLE * view.eye_distance**2:
        # The photograph ends there; beside the neck are shoulders.
        cloth |= (rows > chin) & ((columns - middle_column).abs() > view.eye_distance)
    return torch.stack([skin, hair, cloth & (shown != PointKind.HAIR)], dim=-1)


def _project_scalp_line(view: PortraitView, rig: HeadRig, face_kinds: FaceKinds) -> float:
    """Row of the forehead's landmark, or of the topmost skin where that is higher."""
    posed = rig(view.rig_params)[0]
    skin = rig.faces[face_kinds.kinds == PointKind.SKIN].unique()
    pixels, _ = project_points(posed[skin], view.cameras)
    return min(float(view.landmarks[FOREHEAD, 1]), float(pixels[0, :, 1].min()))


def _spread(samples: Tensor) -> Tensor:
    """At most `MAX_SEEDS` of the samples, evenly spread."""
    step = max(1, len(samples) // MAX_SEEDS)
    return samples[::step]


def _mixture_cost(lab: Tensor, samples: Tensor) -> Tensor:
    """Negative log likelihood of each pixel under the nearest of a few Gaussians. [H, W]"""
    order = samples[:, 0].argsort(stable=True)
    centres = samples[order][((torch.arange(NUM_COLORS) + 0.5) / NUM_COLORS * len(order)).long()]
    for _ in range(12):
        owner = torch.cdist(samples, centres).argmin(1)
        member = torch.nn.functional.one_hot(owner, NUM_COLORS).to(samples)
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ samples / sizes.clamp_min(1), centres)
    costs = []
    for index in range(NUM_COLORS):
        own = samples[owner == index]
        if len(own) < 8:
            continue
        spread = torch.cov(own.T) + 9 * torch.eye(3)
        offset = lab - own.mean(0)
        distance = torch.einsum("hwi,ij,hwj->hw", offset, torch.linalg.inv(spread), offset)
        share = len(own) / len(samples)
        costs.append(0.5 * (distance + torch.logdet(spread)) - torch.tensor(share).log())
    return torch.stack(costs).amin(0)


def _place_cost(view: PortraitView, on_mesh: Tensor) -> Tensor:
    """What speaks against a kind at a place. [H, W, 3]

    Hair below the chin, cloth above it, and skin beside the mesh.
    """
    height, width = view.matte.shape
    rows = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    below_chin = (rows - view.landmarks[CHIN, 1]) / view.eye_distance
    cloth = (8 * (0.25 - below_chin)).clamp(0, 12)
    hair = (3 * below_chin).clamp(0, 3)
    beside = nearest_pixels(on_mesh)[0] / view.eye_distance
    skin = (BESIDE * (beside - NEAR)).clamp(0, MOST_BESIDE)
    return torch.stack([skin, hair, cloth], dim=-1)


def srgb_to_lab(image: Tensor) -> Tensor:
    """CIE L*a*b* under daylight, in which distances are those of the eye. [..., 3] -> [..., 3]"""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    to_xyz = image.new_tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / image.new_tensor([0.9505, 1.0, 1.089])
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)

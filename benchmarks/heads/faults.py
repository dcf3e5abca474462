# SPDX-License-Identifier: Apache-2.0
"""What comes apart when an avatar moves: holes, exploded splats, and floaters, counted.

The posed mesh of the head says where the avatar should be. Lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pointillist_hf.avatar import Avatar
from pointillist_hf.geometry.structures import Cameras, Gaussians, RigParams
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.neighbors import nearest_points
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rigs.head_rig import HeadRig

SHINES = 0.5  # alpha below which the background shows
GAP = 4  # width of gaps in the mesh's silhouette that are closed, pixels
EDGE = 3  # pixels inside the silhouette that are left out: a half-transparent rim is no hole
GROWN, LONG = 3.0, 0.008  # a splat that is so many times as long as at rest, and so long
FLOATER_OPACITY = 0.1
SKIN_REACH, HAIR_REACH = 0.015, 0.06  # how far off the surface a splat may lie
# Hair before a cheek hangs on faces of the cheek: splats there with others so near are hair.
COMPANY, NEAR = 4, 0.02
ISLAND_ALPHA, ISLAND_PIXELS = 0.3, 4  # what is seen apart from the head, and is more than a speck
SAMPLES = torch.tensor(  # on every face: corners, middles of the edges, and the centre
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [1 / 3] * 3]
)


@dataclass(frozen=True)
class PoseFaults:
    """What is wrong with an avatar in one pose, seen by some cameras."""

    hole_pixels: int  # of all pictures together, surrounded by the avatar
    missing_percent: float  # of the silhouettes: not covered, and open to the outside
    exploded: int  # splats
    floaters: int  # splats
    islands: int  # pieces of the pictures that are apart from the head

    @property
    def is_clean(self) -> bool:
        """Whether there is no hole, nothing exploded, and nothing that floats.

        What is missing at the rim is a matter of shape: avatars follow the outline of a photograph.
        """
        return not (self.hole_pixels or self.exploded or self.floaters or self.islands)


def count_pose_faults(avatar: Avatar, rig_params: RigParams, cameras: Cameras) -> PoseFaults:
    """The faults of one frame.

    Args:
        avatar: On the CPU.
        rig_params: One frame; its identity does not matter.
        cameras: That see all of the head.
    """
    posed = avatar.animate(rig_params).gaussians[0]
    own = {name: getattr(rig_params, name) for name in rig_params.__dataclass_fields__}
    vertices = avatar.rig(RigParams(**{**own, "betas": avatar.betas[None]}))[0]
    alphas = rasterize(posed, cameras)[1][..., 0]
    silhouettes = draw_silhouettes(vertices, avatar.rig.faces, cameras)
    holes, missing = find_holes(alphas, silhouettes)
    pairs = zip(alphas, silhouettes, strict=True)
    return PoseFaults(
        hole_pixels=int(holes.sum()),
        missing_percent=100 * float(missing.sum() / silhouettes.sum().clamp_min(1)),
        exploded=int(find_exploded(avatar.gaussians, posed).sum()),
        floaters=int(find_floaters(posed, avatar.bindings, avatar.rig, vertices).sum()),
        islands=sum(count_islands(alpha, silhouette) for alpha, silhouette in pairs),
    )


def draw_silhouettes(vertices: Tensor, faces: Tensor, cameras: Cameras) -> Tensor:
    """Where the mesh is, with narrow gaps and holes closed. [C, H, W]

    Args:
        vertices: Posed, metres. [V, 3]
        faces: [F, 3]
        cameras: C.
    """
    masks = []
    for viewmat, intrinsics in zip(cameras.viewmats, cameras.Ks, strict=True):
        size = (cameras.width, cameras.height)
        drawn = rasterize_mesh(vertices, faces, viewmat, intrinsics, *size).face_ids >= 0
        padded = np.pad(drawn, GAP, mode="edge")
        closed = ndimage.binary_closing(padded, iterations=GAP // 2)
        masks.append(ndimage.binary_fill_holes(closed)[GAP:-GAP, GAP:-GAP])
    return torch.from_numpy(np.stack(masks))


def find_holes(alphas: Tensor, silhouettes: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels well inside the head through which the background shines.

    Args:
        alphas: [C, H, W]
        silhouettes: [C, H, W]

    Returns:
        Those that the avatar surrounds, and those that are open to the outside. [C, H, W] each
    """
    holes, missing = [], []
    for alpha, silhouette in zip(alphas, silhouettes, strict=True):
        inner = ndimage.binary_erosion(silhouette, iterations=EDGE, border_value=1)
        labels = ndimage.label((alpha < SHINES).numpy())[0]
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        is_open = np.isin(labels, rim[rim > 0])
        holes.append(inner & (labels > 0) & ~is_open)
        missing.append(inner & is_open)
    return torch.from_numpy(np.stack(holes)), torch.from_numpy(np.stack(missing))


def find_exploded(rest: Gaussians, posed: Gaussians) -> Tensor:
    """Splats whose longest axis is far longer than at rest, and long. [N]"""
    before, after = rest.scales.amax(-1), posed.scales.amax(-1)
    return (after > GROWN * before) & (after > LONG)


def find_floaters(posed: Gaussians, bindings: Tensor, rig: HeadRig, vertices: Tensor) -> Tensor:
    """Splats that can be seen and lie too far outside the posed surface, wherever they are bound.

    On skin, those in company are hair, and may lie as far off as hair may.

    Args:
        posed: N splats.
        bindings: [N]
        rig: Of the bindings.
        vertices: Posed. [V, 3]

    Returns:
        [N]
    """
    corners = vertices[rig.faces]
    reach = torch.where(find_loose_faces(rig)[bindings], HAIR_REACH, SKIN_REACH)
    # Few are far from the centre of their own face, and the others need no search.
    own = (posed.means - corners[bindings].mean(1)).norm(dim=-1)
    asked = ((posed.opacities > FLOATER_OPACITY) & (own > reach)).nonzero()[:, 0]
    surface = torch.einsum("kc,fcd->fkd", SAMPLES, corners).flatten(0, 1)
    distances, nearest = nearest_points(posed.means[asked], surface, 1)
    normals = face_normals(corners)[nearest[:, 0] // len(SAMPLES)]
    heights = ((posed.means[asked] - surface[nearest[:, 0]]) * normals).sum(-1)
    found = torch.zeros(len(bindings), dtype=torch.bool)
    found[asked] = (distances[:, 0] > reach[asked]) & (heights > 0)
    off = found.nonzero()[:, 0]
    gaps = nearest_points(posed.means[off], posed.means, COMPANY + 1)[0][:, -1]
    is_far = distances[found[asked], 0] > HAIR_REACH
    found[off] = is_far | (gaps > NEAR)
    return found


def find_loose_faces(rig: HeadRig) -> Tensor:
    """Faces that touch scalp or clothes, which hair and cloth hang on. [F]"""
    kinds = find_face_kinds(rig).kinds
    is_loose = (kinds == PointKind.HAIR) | (kinds == PointKind.CLOTH)
    touched = torch.zeros(len(rig.v_template), dtype=torch.bool)
    touched[rig.faces[is_loose]] = True
    return touched[rig.faces].any(1)


def face_normals(corners: Tensor) -> Tensor:
    """Outward, of any length. [F, 3, 3] -> [F, 3]"""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return torch.linalg.cross(first, second)


def count_islands(alpha: Tensor, silhouette: Tensor) -> int:
    """Pieces of a picture that nothing connects with the head. [H, W] each"""
    labels, count = ndimage.label((alpha > ISLAND_ALPHA).numpy(), np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    touches = np.bincount(labels[silhouette.numpy()], minlength=count + 1)[1:]
    head = touches.argmax() if count else 0
    return sum(bool(size >= ISLAND_PIXELS) for i, size in enumerate(sizes) if i != head)

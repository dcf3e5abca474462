# SPDX-License-Identifier: Apache-2.0
"""What is compared of two pictures of a head, and how.

The head ends 0.3 eye distances (2.7 cm) below the chin: shoulders and what lies on them are left
out, long hair below that line too. `RIM` pixels around the head count as well, so that what is
painted beyond the outline is no gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pointillist_hf.evaluation.likeness import Likeness
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.geometry.structures import Cameras, Gaussians, RigParams
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rigs.head_rig import HeadRig

BELOW_CHIN = 0.3  # eye distances
EYE_DISTANCE = 0.09  # metres, of the outer canthi
CHIN = 8  # of the rig's 68 landmarks
RIM = 12  # pixels of a picture of 384
EDGE, CLOSED = 6, 8  # pixels inside an outline that are left out; width of gaps that are filled


def above_chin(rig: HeadRig, rig_params: RigParams, cameras: Cameras) -> Tensor:
    """Pixels above the end of the head. [C, H, W]"""
    chin = rig.landmarks(rig(rig_params))[0, CHIN] - torch.tensor([0, BELOW_CHIN * EYE_DISTANCE, 0])
    ends = project_points(chin[None], cameras)[0][:, 0, 1]
    rows = torch.arange(cameras.height) + 0.5
    return (rows < ends[:, None])[..., None].expand(-1, -1, cameras.width)


def grow(masks: Tensor, pixels: int) -> Tensor:
    """Masks with a rim around them. [C, H, W]"""
    distances = [ndimage.distance_transform_edt(~mask.numpy()) for mask in masks]
    return torch.from_numpy(np.stack(distances) <= pixels)


def masked_psnr(images: Tensor, targets: Tensor, masks: Tensor) -> list[float]:
    """Decibels of each picture, where its mask is. [C, H, W, 3], [C, H, W, 3], [C, H, W]"""
    errors = (images - targets).square().mean(-1)
    return [-10 * float(e[mask].mean().log10()) for e, mask in zip(errors, masks, strict=True)]


def draw(gaussians: Gaussians, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pictures on white [C, H, W, 3] and how much of each pixel is covered [C, H, W]."""
    white = torch.ones(len(cameras), 3)
    images, alphas = rasterize(gaussians, cameras, backgrounds=white)[:2]
    return images.clamp(0, 1), alphas[..., 0]


def find_face(rig: HeadRig, rig_params: RigParams, cameras: Cameras) -> Tensor:
    """Pixels of the face, without ears and scalp. [C, H, W]"""
    is_face = torch.zeros(len(rig.v_template), dtype=torch.bool)
    is_face[rig.mask("face")] = True
    is_face = is_face[rig.faces].all(1)
    vertices, masks = rig(rig_params)[0].numpy(), []
    for viewmat, intrinsics in zip(cameras.viewmats, cameras.Ks, strict=True):
        camera = (viewmat.numpy(), intrinsics.numpy(), cameras.width, cameras.height)
        face_ids = torch.from_numpy(rasterize_mesh(vertices, rig.faces.numpy(), *camera).face_ids)
        masks.append((face_ids >= 0) & is_face[face_ids.clamp_min(0).long()])
    return torch.stack(masks)


def split_error(
    errors: Tensor, alphas: Tensor, truth: Tensor, face: Tensor, where: Tensor
) -> dict[str, float]:
    """Which part of the squared error lies where, in percent of all. [C, H, W] each

    Spill is what is painted beyond the true outline, missing what is not covered inside it; the
    rest is wrong colour, on the face or on hair, ears and neck.
    """
    inside, covered = truth > 0.5, alphas > 0.5
    shown = inside & covered
    parts = {
        "spill": ~inside,
        "missing": inside & ~covered,
        "face": shown & face,
        "around_face": shown & ~face,
    }
    whole = errors[where].sum()
    return {
        f"error_{name}_percent": round(100 * float(errors[part & where].sum() / whole), 1)
        for name, part in parts.items()
    }


def silhouette_overlap(alphas: Tensor, truth: Tensor, where: Tensor) -> list[float]:
    """Intersection over union of what is covered, where the mask says. [C, H, W] each"""
    ours, theirs = (alphas > 0.5) & where, (truth > 0.5) & where
    return ((ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))).tolist()


def measure_holes(alphas: Tensor, truth: Tensor | None = None) -> list[float]:
    """Share of the background that shines through the figure, in percent, shoulders and all.

    The figure is what is covered, gaps of 8 pixels closed and holes filled; its edge is left out.

    Args:
        alphas: [C, H, W]
        truth: Of the true figure, which must lie there too. [C, H, W]
    """
    shares = []
    for i, alpha in enumerate(alphas.numpy()):
        padded = np.pad(alpha > 0.5, CLOSED, mode="edge")
        closed = ndimage.binary_closing(padded, iterations=CLOSED // 2)
        figure = ndimage.binary_fill_holes(closed)[CLOSED:-CLOSED, CLOSED:-CLOSED]
        if truth is not None:
            figure = figure & (truth[i].numpy() > 0.5)
        inner = ndimage.binary_erosion(figure, iterations=EDGE, border_value=1)
        shares.append(100 * float((1 - alpha[inner]).mean()) if inner.any() else 0.0)
    return shares


def share_outside(alphas: Tensor, masks: Tensor) -> list[float]:
    """Opacity outside of masks, in percent of all of it. [C, H, W] twice"""
    outside = (alphas * ~masks).sum((1, 2)) / alphas.sum((1, 2)).clamp_min(1e-6)
    return (100 * outside).tolist()


def place_faces(likeness: Likeness, images: Sequence[Tensor]) -> list[Tensor | None]:
    """Places in the recognition network's space, None where no face is found."""
    places = []
    for image in images:
        try:
            places.append(likeness.embed(image.permute(2, 0, 1)))
        except ValueError:
            places.append(None)
    return places


def face_distances(
    places: Sequence[Tensor | None], truth: Sequence[Tensor | None]
) -> list[float | None]:
    """Distances of faces, None where one was not found."""
    return [
        None if a is None or b is None else float(torch.dist(a, b))
        for a, b in zip(places, truth, strict=True)
    ]


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that there are, to three digits."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None

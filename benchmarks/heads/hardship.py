# SPDX-License-Identifier: Apache-2.0
"""What comes of difficult photographs: an avatar with warnings, or one clear error.

Debris is opacity where nobody is: outside of the matte as the photograph sees it; from the side,
farther from the rig's outline than hair reaches, or not connected with the head.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from pointillist_hf import AvatarPipeline, AvatarPipelineOutput
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.refinement.projection import draw_depth

from .difficult import CASES, Model
from .regions import draw, grow, measure_holes, share_outside
from .sitting import facing_front

SIDES = (-40.0, 40.0)
SIZE, SHOWN = 384, 192  # pixels
MATTE_RIM = 4  # pixels that do not count as outside
HAIR = 0.04  # metres around the rig where hair may be
PER_SHEET = 10


def make_model(pipe: AvatarPipeline, path: Path, other: Path | None) -> Model:
    """The photograph that is made difficult, and one of somebody else."""
    image = Image.open(path).convert("RGB")
    landmarks = pipe.portrait_tracker(image)[0].landmarks[:, :2].numpy()
    beside = Image.open(other).convert("RGB") if other else CASES["turned by 60"](None)
    return Model(image, landmarks, beside)


def measure_case(pipe: AvatarPipeline, model: Model, name: str, folder: Path) -> dict:
    """The outcome of one photograph; kept in the folder with its pictures."""
    stem = re.sub(r"\W+", "_", name)
    cache, strip = folder / f"{stem}.json", folder / f"{stem}.png"
    if cache.is_file():
        return json.loads(cache.read_text())
    image = CASES[name](model)
    try:
        result = pipe(image, seed=0, refine_steps=0)
    except ValueError as error:
        outcome = {"case": name, "error": str(error)}
        pictures = _as_square(image).expand(4, -1, -1, -1).clone()
        pictures[1:] = 1
    else:
        figures, pictures = examine(result)
        outcome = {"case": name, "warnings": list(result.portraits[0].warnings), **figures}
    write_contact_sheet(pictures, strip, labels=[name, *("" for _ in pictures[1:])])
    cache.write_text(json.dumps(outcome, indent=2) + "\n")
    return outcome


def examine(result: AvatarPipelineOutput) -> tuple[dict[str, float], Tensor]:
    """Debris and holes; the head in the photograph, the avatar on it, both sides. [4, H, W, 3]"""
    view, avatar, params = result.tracked[0].view(SIZE), result.avatar, result.rig_params[:1]
    images, alphas = draw(avatar.animate(params).gaussians[0], view.cameras)
    matte = grow((view.matte > 0.5)[None], MATTE_RIM) | ~view.inside
    cameras = orbit_cameras(SIDES, width=SIZE, height=SIZE)
    front = facing_front(params)
    turned, side_alphas = draw(avatar.animate(front).gaussians[0], cameras)
    rig = [draw_depth(avatar.rig, front, cameras[i : i + 1]) for i in range(len(cameras))]
    metres = 1.2 / float(cameras.Ks[0, 0, 0])
    near = grow(torch.stack(rig).isfinite(), round(HAIR / metres))
    both = torch.cat([alphas, side_alphas])
    figures = {
        "outside_matte_percent": share_outside(alphas, matte)[0],
        "outside_rig_percent": max(share_outside(side_alphas, near)),
        "detached_percent": max(measure_detached(both)),
        "holes_percent": max(measure_holes(both)),
        "points": len(avatar),
    }
    pictures = torch.cat([view.image[None], images, turned])
    small = torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2), SIZE // SHOWN)
    return {n: round(v, 3) for n, v in figures.items()}, small.permute(0, 2, 3, 1)


def measure_detached(alphas: Tensor) -> list[float]:
    """Opacity that hangs on no other, in percent of all. [C, H, W]"""
    shares = []
    for alpha in alphas.numpy():
        parts, count = ndimage.label(alpha > 0.1)
        sums = ndimage.sum_labels(alpha, parts, range(1, count + 1)) if count else np.ones(1)
        shares.append(100 * float(1 - sums.max() / sums.sum()))
    return shares


def _as_square(image: Image.Image) -> Tensor:
    image = image.convert("RGB")
    image.thumbnail((SHOWN, SHOWN))
    page = Image.new("RGB", (SHOWN, SHOWN), "white")
    page.paste(image, ((SHOWN - image.width) // 2, (SHOWN - image.height) // 2))
    return torch.from_numpy(np.array(page)).float()[None] / 255


def write_sheets(folder: Path) -> None:
    """Ten cases on a sheet, two in a row."""
    strips = [folder / (re.sub(r"\W+", "_", name) + ".png") for name in CASES]
    strips = [Image.open(strip) for strip in strips if strip.is_file()]
    for start in range(0, len(strips), PER_SHEET):
        part = strips[start : start + PER_SHEET]
        width, height = part[0].size
        sheet = Image.new("RGB", (2 * width + 16, -(-len(part) // 2) * height), "white")
        for i, strip in enumerate(part):
            sheet.paste(strip, (i % 2 * (width + 16), i // 2 * height))
        sheet.save(folder / f"sheet_{start // PER_SHEET + 1}.png")


def summarise(outcomes: list[dict]) -> dict:
    """Counts, the worst of each figure, and what is said of each case."""
    made = [o for o in outcomes if "error" not in o]
    names = ("outside_matte_percent", "outside_rig_percent", "detached_percent", "holes_percent")
    return {
        "cases": len(outcomes),
        "avatars": len(made),
        "with_warnings": sum(bool(o["warnings"]) for o in made),
        **{f"mean_{n}": round(float(np.mean([o[n] for o in made])), 3) for n in names if made},
        **{f"worst_{n}": max(made, key=lambda o, n=n: o[n])["case"] for n in names if made},
        "outcomes": outcomes,
    }

# SPDX-License-Identifier: Apache-2.0
"""Fits of synthetic captures: how good, how many points, where, and how long they take.

python benchmarks/fitting.py [--output DIR] [--num_people 4] [--num_proc 2]

A fit that is already in the output folder is measured and not done again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import torch
from transformers import HfArgumentParser

from pointillist_hf.data.captures.reading import read_capture
from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, write_synthetic_captures
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.fits import FittedPerson, read_fit
from pointillist_hf.data.fitting.runner import fit_captures
from pointillist_hf.data.tokens.row_picture import draw_points
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.bound_splats import local_to_global
from pointillist_hf.geometry.structures import CanonicalPoints, Capture
from pointillist_hf.geometry.triangles import face_areas
from pointillist_hf.rendering.rasterize import rasterize

# Regions of the head with their masks.
REGIONS = {
    "eyes": ("eyelids", "eye_left", "eye_right"),
    "lips": ("lips",),
    "nose": ("nose",),
    "ears": ("ear_left", "ear_right"),
    "scalp": ("scalp",),
    "neck": ("neck",),
    "shoulders": ("shoulders",),
}


@dataclass
class Arguments:
    """Where to, and how much."""

    output: str = "outputs/fitting"
    num_people: int = 4
    image_size: int = 256
    preset: str = "fast"
    num_proc: int = 2
    device: str = "cpu"  # cuda draws with gsplat
    seed: int = 0


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    folder = Path(arguments.output)
    captures = write_synthetic_captures(
        folder / "captures",
        arguments.num_people,
        SyntheticCaptureConfig(image_size=arguments.image_size),
        seed=arguments.seed,
        num_proc=arguments.num_proc,
    )
    missing = [c for c in captures if not (folder / "fits" / c.name / "fit.json").exists()]
    started = time.perf_counter()
    config = FitConfig.preset(arguments.preset)
    failed = fit_captures(
        captures, folder / "fits", config, num_proc=arguments.num_proc, device=arguments.device
    )
    seconds = time.perf_counter() - started
    if failed:
        raise SystemExit(str(failed))
    rows, pictures = [], []
    for path in captures:
        person, capture = read_fit(folder / "fits" / path.name), read_capture(path)
        rows.append({"person": path.name, **describe(person)})
        pictures.append(picture_row(person, capture))
        print(json.dumps(rows[-1]))
    results = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "numba": numba.__version__,
        "preset": arguments.preset,
        "image_size": arguments.image_size,
        "num_proc": arguments.num_proc,
        "device": arguments.device,
        "fitted_in_this_run": len(missing),
        "wall_seconds": round(seconds, 1),
        "people": rows,
    }
    (folder / "fitting.json").write_text(json.dumps(results, indent=2) + "\n")
    write_contact_sheet(torch.cat(pictures), folder / "fitting.png", columns=len(pictures[0]))
    print(f"figures and pictures in {folder}; fits took {seconds:.0f} s")


def describe(person: FittedPerson) -> dict[str, object]:
    """Figures of a fit. Added points are those beyond the first of each face."""
    counts = torch.bincount(person.splats.bindings, minlength=person.rig.num_faces)
    areas = face_areas(person.rest_vertices, person.rig.faces) * 1e4
    density, added = {}, {}
    for name, masks in REGIONS.items():
        is_inside = torch.zeros(len(person.rest_vertices), dtype=torch.bool)
        for mask in masks:
            is_inside[person.rig.mask(mask)] = True
        inside = is_inside[person.rig.faces].all(1)
        density[name] = round(float(counts[inside].sum() / areas[inside].sum()), 1)
        added[name] = round(float((counts[inside] - 1).float().mean()), 2)
    return {
        "num_points": len(person.splats),
        "least_points_of_a_face": int(counts.min()),
        **{name: round(value, 2) for name, value in person.notes["figures"].items()},
        "points_per_cm2": density,
        "added_points_per_face": added,
    }


def picture_row(person: FittedPerson, capture: Capture) -> torch.Tensor:
    """A held-out picture, the fit from there, its error, and the canonical points."""
    number = capture.of_split("val")[0]
    camera, step = capture.cameras[number : number + 1], capture.timesteps[number : number + 1]
    faces = person.rig.faces[person.splats.bindings]
    vertices = person.rig(person.rig_params[step], person.static_offset)[0]
    white = torch.ones(1, 3)
    fitted = rasterize(local_to_global(person.splats, vertices[faces]), camera, backgrounds=white)
    truth, image = capture.images[number], fitted[0][0]
    rest = local_to_global(person.splats, person.rest_vertices.float()[faces])
    points = draw_points(CanonicalPoints(rest.means, person.splats.bindings), capture.cameras.width)
    error = 1 - (4 * (image - truth).abs()).clamp(0, 1)
    return torch.stack([truth, image, error, *points])


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Is anybody of the population broken, and how long does a person take?

python benchmarks/population.py [--num_people N] [--output FILE]

Every person is checked: numbers are finite, the skin has kept its sides, hair is in the cube of the
coordinates, all points are bound, and the portrait shows a head in the middle. Then everybody tries
on glasses and earrings: they must neither enter the head nor lose touch with it.
"""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf.data.population.accessories import sample_earrings, sample_glasses
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.glasses import HOOK_STEPS
from pointillist_hf.data.population.photography import portrait_cameras
from pointillist_hf.data.population.places import EYE_PARTS
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.strands import barycentric_coordinates, nearest_points
from pointillist_hf.data.population.subject import METRES_PER_CM, Subject, build_subject
from pointillist_hf.data.tokens.synthetic import PROCEDURAL_CUBE
from pointillist_hf.rigs.procedural.fields import SIDES
from pointillist_hf.rigs.procedural.template import vertex_normals

PORTRAIT_SIZE = 64
MAX_DEPTH = 0.1  # cm that worn things may press into the skin
MAX_GAPS = {"nose": 0.6, "temples": 0.75, "earring": 0.3}  # cm
MIN_EYE_RELIEF = 0.4  # cm from an eyeball to a lens


@dataclass
class Arguments:
    """How many people, how many of them are timed, and where the figures go."""

    num_people: int = 1000
    num_timed: int = 20
    resolution: str = "full"
    output: str = "outputs/population.json"


def faults(person: Subject) -> list[str]:
    """What is wrong with a person."""
    posed, found = person.at_rest(), []
    faces, vertices = person.template.faces, posed.vertices
    strands = np.concatenate([bundle.points.reshape(-1, 3) for bundle in posed.strands])
    if not (np.isfinite(vertices).all() and np.isfinite(strands).all()):
        return ["not finite"]
    normals = [
        np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
        for v in (person.template.vertices, vertices)
    ]
    turned = np.einsum("fx,fx->f", *normals) < 0
    if turned.mean() > 0.002:
        found.append("faces turned over")
    cloud = sample_cloud(person)
    center, half = np.array(PROCEDURAL_CUBE["cube_center"]), PROCEDURAL_CUBE["cube_half_extent"]
    if (np.abs(cloud.means - center) > half).any():
        found.append("points outside of the cube")
    if (np.abs(METRES_PER_CM * strands - center) > half).mean() > 0.01:
        found.append("hair outside of the cube")
    if cloud.bindings.min() < 0 or cloud.bindings.max() >= len(faces):
        found.append("points without a face")
    if not (np.isfinite(cloud.scales).all() and (cloud.scales > 0).all()):
        found.append("splats without a size")
    picture = render_frame(posed, portrait_cameras([0.0], [0.0], size=PORTRAIT_SIZE))
    # From the brows to the mouth of any head, and no wider than a narrow face.
    middle = slice(7 * PORTRAIT_SIZE // 16, 9 * PORTRAIT_SIZE // 16)
    if not np.isfinite(picture).all() or picture[middle, middle, 3].mean() < 0.99:
        found.append("no head in the middle of the portrait")
    return found


def accessory_faults(person: Subject) -> list[str]:
    """What is wrong with glasses and earrings that the person tries on."""
    rng, found = np.random.default_rng(person.identity.seed), []
    dressed = person.wearing(glasses=sample_glasses(rng), earrings=sample_earrings(rng))
    posed, parts = dressed.at_rest(), person.template.face_parts
    if not all(np.isfinite(piece.lines.points).all() for piece in posed.worn):
        return ["accessories not finite"]
    faces, vertices = person.template.faces, posed.vertices
    skin = faces[np.isin(parts, ("skin", "lid", *EYE_PARTS))]
    heights = {}
    for piece in posed.worn:
        heights.setdefault(piece.name, []).append(heights_over(piece.lines.points, vertices, skin))
    if min(h.min() for parts in heights.values() for h in parts) < -MAX_DEPTH:
        found.append("accessories inside the head")
    for side, sign in SIDES.items():
        own = [piece for piece in posed.worn if piece.name.startswith(side)]
        if min(sign * piece.lines.points[..., 0].min() for piece in own) < 0:
            found.append(f"accessories of the {side} on the other side")
        eye = vertices[person.template.vertex_parts == f"eye_{side}"]
        lens = next(piece for piece in own if piece.name.endswith("lens")).lines.points
        # The mean of its vertices lies in front of the middle of the ball.
        middle = (eye.max(0) + eye.min(0)) / 2
        reach = np.linalg.norm(eye - middle, axis=1).max()
        if np.linalg.norm(lens - middle, axis=-1).min() < reach + MIN_EYE_RELIEF:
            found.append(f"{side} lens in the eye")
        ear = vertices[person.template.vertex_parts == f"ear_{side}"]
        ring = np.concatenate([p.lines.points for p in own if p.name.endswith("earring")], axis=1)
        if np.linalg.norm(ring[0, :, None] - ear, axis=-1).min() > MAX_GAPS["earring"]:
            found.append(f"{side} earring off the lobe")
    nose = heights["pads" if "pads" in heights else "bridge"][0]
    if nose.min() > MAX_GAPS["nose"]:
        found.append("glasses off the nose")
    if heights["temples"][0][:, -HOOK_STEPS:].max() > MAX_GAPS["temples"]:
        found.append("temples off the head")
    return found


def heights_over(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed distances to the nearest faces, by centroid, cm. [n, k, 3] -> [n, k]"""
    flat, corners = points.reshape(-1, 3), vertices[faces]
    nearest = nearest_points(flat, corners.mean(1))
    barycentric = barycentric_coordinates(flat, corners[nearest])
    normals = vertex_normals(vertices, faces)[faces[nearest]]
    offsets = flat - np.einsum("nc,ncx->nx", barycentric, corners[nearest])
    sides = np.einsum("nx,nc,ncx->n", offsets, barycentric, normals)
    return (np.sign(sides) * np.linalg.norm(offsets, axis=1)).reshape(points.shape[:2])


def seconds_per_person(arguments: Arguments) -> dict[str, float]:
    """Medians over some people; the first one, who pays for the caches, is left out."""
    camera, times = portrait_cameras([10.0], [5.0], size=256), {"identity": [], "frame_256": []}
    for seed in range(arguments.num_timed + 1):
        start = time.perf_counter()
        posed = build_subject(seed, resolution=arguments.resolution).at_rest()
        built = time.perf_counter()
        render_frame(posed, camera)
        times["identity"].append(built - start)
        times["frame_256"].append(time.perf_counter() - built)
    return {name: round(float(np.median(values[1:])), 3) for name, values in times.items()}


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    seconds, broken, styles, worn = seconds_per_person(arguments), {}, Counter(), Counter()
    for seed in tqdm(range(arguments.num_people), unit="person"):
        person = build_subject(seed, resolution=arguments.resolution)
        styles[person.identity.hair_style] += 1
        worn["glasses"] += person.identity.glasses is not None
        worn["earrings"] += person.identity.earrings is not None
        if wrong := faults(person) + accessory_faults(person):
            broken[seed] = wrong
    figures = {
        "people": arguments.num_people,
        "broken": broken,
        "seconds": seconds,
        "hair_styles": dict(styles.most_common()),
        "accessories": dict(worn),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

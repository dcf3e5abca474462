# SPDX-License-Identifier: Apache-2.0
"""Is anybody of the population broken, and how long does a person take?

python benchmarks/population.py [--num_people N] [--output FILE]

Every person is checked: numbers are finite, the skin has kept its sides, hair is in the cube of the
coordinates, all points are bound, and the portrait shows a head in the middle.
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

from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import METRES_PER_CM, Subject, build_subject
from pointillist_hf.data.synthetic import portrait_cameras
from pointillist_hf.data.synthetic_dataset import PROCEDURAL_CUBE

PORTRAIT_SIZE = 64


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
    seconds, broken, styles = seconds_per_person(arguments), {}, Counter()
    for seed in tqdm(range(arguments.num_people), unit="person"):
        person = build_subject(seed, resolution=arguments.resolution)
        styles[person.identity.hair_style] += 1
        if wrong := faults(person):
            broken[seed] = wrong
    figures = {
        "people": arguments.num_people,
        "broken": broken,
        "seconds": seconds,
        "hair_styles": dict(styles.most_common()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Sheets of the head rig and its population: python examples/rig_gallery.py --output DIR.

template.png: the mean head in clay from four sides. expressions.png: twelve expressions of one
person. people.png: uncurated identities, seeds 0, 1, 2, ... accessories.png: the first of them who
wear glasses or earrings, from the front and from a side. hair.png: every hair style from three
sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import ProceduralHeadRig
from pointillist_hf.data.population import subject as population
from pointillist_hf.data.population.hairstyles import HAIR_STYLES
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.data.population.photography import pose_subject
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Cameras
from pointillist_hf.motion.arkit import arkit_params
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rigs.procedural.template import vertex_normals

PAPER = np.array([0.96, 0.96, 0.97])
CLAY = np.array([0.72, 0.66, 0.61])
LIGHTS = ((0.6, 0.5, 0.7, 0.75), (-0.7, 0.2, 0.5, 0.3), (0.0, 0.6, -0.8, 0.35))  # way, strength
EXPRESSIVE_SEED = 24
EXPRESSIONS = {
    "neutral": {},
    "jaw open": {"jawOpen": 1.0},
    "smile": {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.6,
              "cheekSquintRight": 0.6},
    "frown": {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0, "browInnerUp": 0.7},
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.8, "mouthSmileLeft": 0.5},
    "surprise": {"jawOpen": 0.6, "eyeWideLeft": 1.0, "eyeWideRight": 1.0, "browInnerUp": 1.0,
                 "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0},
    "anger": {"browDownLeft": 1.0, "browDownRight": 1.0, "noseSneerLeft": 0.8,
              "noseSneerRight": 0.8, "mouthPressLeft": 0.6, "mouthPressRight": 0.6},
    "pucker": {"mouthPucker": 1.0},
    "puffed cheeks": {"cheekPuff": 1.0},
    "look left": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0},
    "tongue out": {"tongueOut": 1.0, "jawOpen": 0.7},
}  # fmt: skip


@dataclass
class Arguments:
    """Where to, and how much."""

    output: str = "outputs/rig_gallery"
    num_people: int = 40
    num_dressed: int = 8
    size: int = 256
    resolution: str = "full"


def clay(rig: ProceduralHeadRig, camera: Cameras, supersampling: int = 3) -> torch.Tensor:
    """The mean head as if modelled in clay. [H, W, 3]"""
    vertices, faces = rig.v_template.double().numpy(), rig.faces.numpy()
    K = camera.Ks[0].numpy() * np.array([[supersampling], [supersampling], [1]])
    size = (supersampling * camera.width, supersampling * camera.height)
    buffers = rasterize_mesh(vertices, faces, camera.viewmats[0].numpy(), K, *size)
    corners = vertex_normals(vertices, faces)[faces[buffers.face_ids]]
    normals = np.einsum("hwk,hwkx->hwx", buffers.barycentric, corners)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    light = 0.22 * np.ones(normals.shape[:2])
    for *way, strength in LIGHTS:
        light += strength * np.clip(normals @ (np.array(way) / np.linalg.norm(way)), 0, None)
    image = np.where((buffers.face_ids >= 0)[..., None], CLAY * light[..., None] ** 0.8, PAPER)
    grid = (camera.height, supersampling, camera.width, supersampling, 3)
    return torch.from_numpy(image.clip(0, 1).reshape(grid).mean((1, 3)))


def portrait(posed: population.PosedSubject, camera: Cameras) -> torch.Tensor:
    """A person on paper. [H, W, 3]"""
    picture = torch.from_numpy(render_frame(posed, camera))
    return picture[..., :3] * picture[..., 3:] + torch.tensor(PAPER) * (1 - picture[..., 3:])


def first_dressed(num_people: int, resolution: str) -> list[int]:
    """The lowest seeds whose people wear glasses or earrings."""
    names, _ = population.shape_basis(resolution)
    people = (sample_identity(seed, names) for seed in count())
    dressed = (person.seed for person in people if person.glasses or person.earrings)
    return list(islice(dressed, num_people))


def first_with(style: str, resolution: str) -> population.PosedSubject:
    """The person of the lowest seed that wears a hair style."""
    names, _ = population.shape_basis(resolution)
    seed = next(i for i in count() if sample_identity(i, names).hair_style == style)
    return population.build_subject(seed, resolution=resolution).at_rest()


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output, view = Path(arguments.output), {"width": arguments.size, "height": arguments.size}
    output.mkdir(parents=True, exist_ok=True)
    rig = ProceduralHeadRig(arguments.resolution)
    sides = orbit_cameras([0.0, 40.0, 90.0, 180.0], **view)
    sheet = torch.stack([clay(rig, sides[i : i + 1]) for i in range(4)])
    write_contact_sheet(sheet, output / "template.png")

    front = orbit_cameras([10.0], fov=14.0, target=(0.0, 0.0, 0.0), **view)
    person = population.build_subject(EXPRESSIVE_SEED, resolution=arguments.resolution)
    betas = torch.tensor(person.identity.betas, dtype=torch.float32)
    faces = [
        portrait(pose_subject(person, rig, arkit_params(move, rig, betas=betas))[0], front)
        for move in tqdm(EXPRESSIONS.values(), desc="expressions")
    ]
    write_contact_sheet(
        torch.stack(faces), output / "expressions.png", columns=6, labels=list(EXPRESSIONS)
    )
    camera = orbit_cameras([18.0], fov=20.0, **view)
    people = [
        portrait(population.build_subject(seed, resolution=arguments.resolution).at_rest(), camera)
        for seed in tqdm(range(arguments.num_people), desc="people")
    ]
    write_contact_sheet(torch.stack(people), output / "people.png", columns=8)

    close = orbit_cameras([0.0, 65.0], fov=14.0, target=(0.0, 0.0, 0.0), **view)
    dressed = [
        population.build_subject(seed, resolution=arguments.resolution).at_rest()
        for seed in first_dressed(arguments.num_dressed, arguments.resolution)
    ]
    views = [portrait(person, close[i : i + 1]) for i in range(2) for person in tqdm(dressed)]
    write_contact_sheet(
        torch.stack(views), output / "accessories.png", columns=arguments.num_dressed
    )

    around = orbit_cameras([0.0, 70.0, 180.0], fov=22.0, **view)
    styles = []
    for style in tqdm(HAIR_STYLES, desc="hair"):
        posed = first_with(style, arguments.resolution)
        styles += [portrait(posed, around[i : i + 1]) for i in range(3)]
    labels = [style for style in HAIR_STYLES for _ in range(3)]
    write_contact_sheet(torch.stack(styles), output / "hair.png", columns=6, labels=labels)
    print(f"template, expressions, people, accessories and hair: {output}")


if __name__ == "__main__":
    main()

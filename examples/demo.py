# SPDX-License-Identifier: Apache-2.0
"""A photograph becomes an avatar: python examples/demo.py [--image FILE] [--output DIR].

The default photograph is NASA's portrait of the astronaut Eileen Collins, in the public domain, as
scikit-image ships it. Writes the avatar, a 3DGS file, a page on which it moves, a turntable, a
sheet of expressions, and the points in the order in which they were generated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import HfArgumentParser

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.exporters.images import write_contact_sheet, write_gif
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.rendering import rasterize

ROOT = Path(__file__).parent.parent
EXPRESSIONS = {
    "neutral": ({}, {}),
    "jaw open": ({}, {"jaw_pose": [0.32, 0.0, 0.0]}),
    "smile": ({"mouthSmile": 1.0, "cheekSquint": 0.7}, {}),
    "blink": ({"eyeBlink": 1.0}, {}),
    "head turned": ({}, {"neck_pose": [0.0, 0.5, 0.0]}),
}


@dataclass
class Arguments:
    """What to show, with which model."""

    image: str = str(ROOT / "examples/images/astronaut.jpg")
    model: str = str(ROOT / "model_cards/pointillist-tiny")
    output: str = "outputs/demo"
    seed: int = 0
    size: int = 384


def turntable(avatar: Avatar, size: int) -> torch.Tensor:
    azimuths = torch.linspace(0, 360, 37)[:-1].tolist()
    return avatar.render(orbit_cameras(azimuths, 5.0, width=size, height=size))


def expressions(avatar: Avatar, size: int) -> torch.Tensor:
    camera = orbit_cameras([0.0], fov=12.0, target=(0.0, 0.01, 0.0), width=size, height=size)
    frames = [
        avatar.animate(avatar.rig_params(expression, **poses)).render(camera)
        for expression, poses in EXPRESSIONS.values()
    ]
    return torch.cat(frames)


def generation_order(avatar: Avatar, size: int) -> torch.Tensor:
    """The points as small balls, from violet (first) over green to yellow (last)."""
    place = torch.linspace(0, 1, len(avatar))[:, None]
    anchors = torch.tensor([[0.27, 0.0, 0.33], [0.13, 0.57, 0.55], [0.99, 0.91, 0.14]])
    low, high = 2 * place.clamp(max=0.5), 2 * (place - 0.5).clamp(min=0)
    colors = anchors[0] * (1 - low) + anchors[1] * (low - high) + anchors[2] * high
    balls = replace(
        avatar.gaussians,
        colors=colors,
        scales=torch.full_like(avatar.gaussians.scales, 0.0016),
        opacities=torch.full_like(avatar.gaussians.opacities, 0.95),
    )
    cameras = orbit_cameras([0.0, 45.0, 90.0], width=size, height=size)
    return rasterize(balls, cameras, backgrounds=torch.ones(3, 3))[0]


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output, start = Path(arguments.output), time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    result = pipe(arguments.image, seed=arguments.seed)
    avatar = result.avatar
    avatar.save_pretrained(output / "avatar")
    avatar = Avatar.from_pretrained(output / "avatar")  # what follows is made from the saved one
    avatar.export(output / "avatar.ply")
    avatar.export(output / "avatar.html", title=Path(arguments.image).stem)
    write_gif(turntable(avatar, arguments.size // 2 * 2), output / "turntable.gif", fps=12)
    write_contact_sheet(
        expressions(avatar, arguments.size), output / "expressions.png", labels=list(EXPRESSIONS)
    )
    write_contact_sheet(generation_order(avatar, arguments.size), output / "points.png")
    print(f"{len(avatar)} points")
    for step, seconds in result.timings.items():
        print(f"{seconds:7.2f} s  {step}")
    print(f"{time.perf_counter() - start:7.2f} s  in all; see {output}/")


if __name__ == "__main__":
    main()

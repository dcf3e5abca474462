# SPDX-License-Identifier: Apache-2.0
"""A photograph becomes an avatar: python examples/demo.py [--image FILE] [--output DIR].

The default photograph is NASA's portrait of the astronaut Eileen Collins, in the public domain, as
scikit-image ships it. Writes the avatar, a 3DGS file, a page on which it moves, a turntable, and a
sheet: the photograph, the avatar on it, from the side and with expressions, and the points in the
order in which they were generated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import HfArgumentParser

from pointillist_hf import Avatar, AvatarPipeline, AvatarPipelineOutput
from pointillist_hf.exporters.images import write_contact_sheet, write_gif
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians
from pointillist_hf.rendering import rasterize

ROOT = Path(__file__).parent.parent
AZIMUTHS = (-40.0, -20.0, 20.0, 40.0)
EXPRESSIONS = {
    "neutral": ({}, {}),
    "smile": ({"mouthSmile": 1.0, "cheekSquint": 0.7}, {}),
    "jaw open": ({}, {"jaw_pose": [0.32, 0.0, 0.0]}),
    "blink": ({"eyeBlink": 1.0}, {}),
    "surprise": (
        {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0},
        {"jaw_pose": [0.2, 0, 0]},
    ),
}


@dataclass
class Arguments:
    """What to show, with which model."""

    image: str = str(ROOT / "examples/images/astronaut.jpg")
    model: str = str(ROOT / "model_cards/pointillist-tiny")
    output: str = "outputs/demo"
    seed: int = 0
    refine_steps: int = 100
    size: int = 384


def turntable(avatar: Avatar, size: int) -> torch.Tensor:
    azimuths = torch.linspace(0, 360, 37)[:-1].tolist()
    return avatar.render(orbit_cameras(azimuths, 5.0, width=size, height=size))


def over_photograph(result: AvatarPipelineOutput, size: int) -> torch.Tensor:
    """The head in the photograph, and the avatar as the same camera sees it. [2, H, W, 3]"""
    view = result.tracked[0].view(size)
    photograph = view.image * view.matte[..., None] + 1 - view.matte[..., None]
    moved = result.avatar.animate(result.rig_params[:1])
    return torch.cat([photograph[None], moved.render(view.cameras)])


def from_the_side(result: AvatarPipelineOutput, size: int) -> torch.Tensor:
    """The avatar with the expression of the photograph, seen from around."""
    as_tracked = result.rig_params[:1]
    still = {name: torch.zeros(1, 3) for name in ("global_orient", "neck_pose", "transl")}
    cameras = orbit_cameras(AZIMUTHS, width=size, height=size)
    return result.avatar.animate(replace(as_tracked, **still)).render(cameras)


def expressions(avatar: Avatar, size: int) -> torch.Tensor:
    camera = orbit_cameras([0.0], width=size, height=size)
    frames = [
        avatar.animate(avatar.rig_params(expression, **poses)).render(camera)
        for expression, poses in EXPRESSIONS.values()
    ]
    return torch.cat(frames)


def generation_order(points: CanonicalPoints, size: int) -> torch.Tensor:
    """The points as small balls, from violet (first) over green to yellow (last)."""
    place = torch.linspace(0, 1, len(points))[:, None]
    anchors = torch.tensor([[0.27, 0.0, 0.33], [0.13, 0.57, 0.55], [0.99, 0.91, 0.14]])
    low, high = 2 * place.clamp(max=0.5), 2 * (place - 0.5).clamp(min=0)
    balls = Gaussians(
        means=points.means,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(points), 4),
        scales=torch.full((len(points), 3), 0.0016),
        opacities=torch.full((len(points),), 0.95),
        colors=anchors[0] * (1 - low) + anchors[1] * (low - high) + anchors[2] * high,
    )
    camera = orbit_cameras([0.0], width=size, height=size)
    return rasterize(balls, camera, backgrounds=torch.ones(1, 3))[0]


def write_sheet(pipe: AvatarPipeline, result: AvatarPipelineOutput, path: Path, size: int) -> None:
    """One picture that tells the whole story."""
    generated = pipe.tokenizer.decode_points(result.input_ids[0])
    images = (
        over_photograph(result, size),
        from_the_side(result, size),
        expressions(result.avatar, size),
        generation_order(generated, size),
    )
    labels = ["photograph", "avatar", *(f"{azimuth:+.0f}\N{DEGREE SIGN}" for azimuth in AZIMUTHS)]
    labels += [*EXPRESSIONS, "generated points"]
    write_contact_sheet(torch.cat(images), path, columns=6, labels=labels)


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output, start = Path(arguments.output), time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    result = pipe(arguments.image, seed=arguments.seed, refine_steps=arguments.refine_steps)
    avatar = result.avatar
    avatar.save_pretrained(output / "avatar")
    avatar = Avatar.from_pretrained(output / "avatar")  # what follows is made from the saved one
    avatar.export(output / "avatar.ply")
    avatar.export(output / "avatar.html", title=Path(arguments.image).stem)
    write_gif(turntable(avatar, arguments.size // 2 * 2), output / "turntable.gif", fps=12)
    write_sheet(pipe, result, output / "sheet.png", arguments.size)
    print(f"{len(avatar)} points")
    for step, seconds in result.timings.items():
        print(f"{seconds:7.2f} s  {step}")
    print(f"{time.perf_counter() - start:7.2f} s  in all; see {output}/")


if __name__ == "__main__":
    main()

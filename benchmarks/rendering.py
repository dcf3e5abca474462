# SPDX-License-Identifier: Apache-2.0
"""How fast are splats drawn on this CPU?

python benchmarks/rendering.py [--num_threads N] [--output FILE]

Compares, in one run, the CPU backend with a rasteriser of vectorised torch operations over tiles,
the usual way without a compiler, and measures how the backend grows with splats and pixels.
Medians of interleaved rounds; milliseconds for one camera, forward / forward and backward. Then how
fast an avatar moves, here and on its page in headless Chromium, if that is installed.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import HfArgumentParser

from pointillist_hf import Avatar, ProceduralHeadRig
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Cameras, Gaussians, RigParams
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.reference_backend import (
    MIN_TRANSMITTANCE,
    pixel_centres,
    project_splats,
    splat_alphas,
)

TILE = 16
SIZES = ((128, 2_000), (256, 2_000), (256, 20_000), (512, 20_000), (512, 200_000), (1024, 20_000))
COMPARED = (512, 20_000)
AVATAR_FRAMES = 50


@dataclass
class Arguments:
    """Threads of the backend, rounds of each measurement, and where the figures go."""

    num_threads: int = 2
    rounds: int = 9
    slow_rounds: int = 3  # of the torch rasteriser
    output: str = "outputs/rendering.json"


def head_like(num_splats: int, seed: int = 0) -> Gaussians:
    """Discs on the shell of an ellipsoid as large as a head, about four pixels wide at 512."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    axes = torch.tensor([0.09, 0.12, 0.10])
    directions = torch.nn.functional.normalize(draw(num_splats, 3), dim=-1)
    sizes = 0.0029 * torch.exp(0.3 * draw(num_splats, 3)) * torch.tensor([1.0, 1.0, 0.3])
    return Gaussians(
        means=directions * axes + 0.003 * draw(num_splats, 1) * directions,
        quats=draw(num_splats, 4),
        scales=sizes,
        opacities=torch.sigmoid(0.5 + 1.8 * draw(num_splats)),
        colors=torch.rand(num_splats, 3, generator=g),
    )


def rasterize_tiles(gaussians: Gaussians, camera: Cameras) -> Tensor:
    """The image by torch operations, tile by tile. [H, W, 3]"""
    width, height = camera.width, camera.height
    splats = project_splats(gaussians, camera.viewmats[0], camera.Ks[0], width, height)
    with torch.no_grad():
        order = torch.argsort(splats.depths)
        order = order[splats.is_visible[order]]
        xx, xy, yy = splats.conics.unbind(-1)
        determinant = xx * yy - xy * xy
        reach = (2 * (255 * gaussians.opacities).clamp_min(1).log()).sqrt()
        half = reach[:, None] * torch.stack([yy, xx], -1).div(determinant[:, None]).sqrt()
        low, high = (splats.means2d - half)[order], (splats.means2d + half)[order]
    image = torch.zeros(height, width, 3)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            inside = (low[:, 0] < right) & (high[:, 0] > left)
            inside &= (low[:, 1] < bottom) & (high[:, 1] > top)
            chosen = order[inside]
            pixels = pixel_centres(right - left, top, bottom) + torch.tensor([left, 0])
            projected = type(splats)(*(values[chosen] for values in splats))
            alphas = splat_alphas(projected, gaussians.opacities[chosen], pixels)
            through = torch.cumprod(1 - alphas, dim=-1)
            alphas = alphas * (through > MIN_TRANSMITTANCE)
            before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=-1)
            color = (alphas * before) @ gaussians.colors[chosen]
            image[top:bottom, left:right] = color.view(bottom - top, right - left, 3)
    return image


def milliseconds(draw: Callable[[Gaussians], Tensor], splats: Gaussians) -> tuple[float, float]:
    """Of the forward pass alone, and of forward and backward."""
    names = splats.__dataclass_fields__
    leaves = Gaussians(**{n: getattr(splats, n).clone().requires_grad_() for n in names})
    start = time.perf_counter()
    with torch.no_grad():
        draw(splats)
    middle = time.perf_counter()
    draw(leaves).sum().backward()
    return 1e3 * (middle - start), 1e3 * (time.perf_counter() - middle)


def medians(rows: list[tuple[float, float]]) -> list[float]:
    return [round(statistics.median(column), 2) for column in zip(*rows, strict=True)]


def head_camera(size: int) -> Cameras:
    return orbit_cameras([17.0], distance=1.0, fov=18.9, width=size, height=size)


def compare(arguments: Arguments) -> dict[str, object]:
    """The backend beside torch, one thread each, taking turns."""
    torch.set_num_threads(1)
    size, count = COMPARED
    splats, camera = head_like(count), head_camera(size)

    def ours(gaussians: Gaussians) -> Tensor:
        return rasterize(gaussians, camera)[0][0]

    difference = (ours(splats) - rasterize_tiles(splats, camera)).abs().mean().item()
    mine, theirs = [], []
    for _ in range(arguments.slow_rounds):
        theirs.append(milliseconds(lambda g: rasterize_tiles(g, camera), splats))
        mine += [milliseconds(ours, splats) for _ in range(3)]
    own, torch_tiles = medians(mine), medians(theirs)
    return {
        "size": size,
        "splats": count,
        "backend_ms": own,
        "torch_tiles_ms": torch_tiles,
        "times_faster": [round(b / a, 1) for a, b in zip(own, torch_tiles, strict=True)],
        "mean_difference": round(difference, 8),
    }


def grow(arguments: Arguments) -> list[dict[str, object]]:
    """The backend by itself over sizes."""
    torch.set_num_threads(arguments.num_threads)
    rows = []
    for size, count in SIZES:
        splats, camera = head_like(count), head_camera(size)
        draw = lambda g, camera=camera: rasterize(g, camera)[0]  # noqa: E731
        milliseconds(draw, splats)
        times = [milliseconds(draw, splats) for _ in range(arguments.rounds)]
        rows.append({"size": size, "splats": count, "backend_ms": medians(times)})
    return rows


def moving_avatar() -> tuple[Avatar, RigParams]:
    """A synthetic person whose points are known, and a second of talk and turns."""
    rig, subject = ProceduralHeadRig("full"), build_subject(4)
    cloud = sample_cloud(subject, num_skin_points=9_000, hair_budget=11_000)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    gaussians = Gaussians(
        means=torch.from_numpy(cloud.means),
        quats=torch.from_numpy(cloud.quats),
        scales=torch.from_numpy(cloud.scales),
        opacities=torch.from_numpy(cloud.opacities),
        colors=torch.from_numpy(cloud.colors),
    )
    phase = torch.linspace(0, 2 * torch.pi, AVATAR_FRAMES)
    motion = replace(
        rig.neutral(betas=betas.expand(AVATAR_FRAMES, -1)),
        jaw_pose=torch.stack([0.15 * (1 + phase.sin()), 0 * phase, 0 * phase], -1),
        neck_pose=torch.stack([0 * phase, 0.3 * phase.cos(), 0 * phase], -1),
    )
    return Avatar(gaussians, torch.from_numpy(cloud.bindings), rig, betas), motion


def animate(arguments: Arguments) -> dict[str, object]:
    """Frames per second of an avatar that moves: animated and drawn, 256 pixels."""
    torch.set_num_threads(arguments.num_threads)
    avatar, motion = moving_avatar()
    camera = orbit_cameras([10.0], width=256, height=256)
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        for frame in range(len(motion)):
            avatar.animate(motion[frame : frame + 1]).render(camera)
        rates.append(len(motion) / (time.perf_counter() - start))
    return {
        "splats": len(avatar),
        "size": 256,
        "frames_per_second": round(statistics.median(rates[1:]), 1),
        "page_frames_per_second": page_rate(avatar, motion),
    }


def page_rate(avatar: Avatar, motion: RigParams) -> int | None:
    """What the avatar's page says of itself in headless Chromium, drawn without a GPU."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "me.html")
        avatar.export(page, motion=motion, fps=25.0)
        options = (
            "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader "
            f"--window-size=512,512 --user-data-dir={folder}/profile --timeout=20000 --dump-dom"
        )
        command = [browser, *options.split(), page.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"(\d+) frames per second", run.stdout)
    return found and int(found[1])


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    start = time.perf_counter()
    rasterize(head_like(10), head_camera(32))
    first = time.perf_counter() - start
    figures = {
        "first_call_s": round(first, 2),
        "one_thread": compare(arguments),
        f"threads_{arguments.num_threads}": grow(arguments),
        "avatar": animate(arguments),
        "machine": platform.processor() or platform.machine(),
        "avx512": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Table 1 on synthetic people whom no model has seen, of four systems whose order is known.

python benchmarks/table_one.py [--num_people 8] [--output outputs/evaluation]

The systems are ingested as folders of renders, as those of anybody would be: a fit of the captures
(it has seen the answer: the upper bound), the pipeline, a template (the faces of the tracked head,
coloured by the photograph), and the mean of other people's templates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import HfArgumentParser

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, write_synthetic_captures
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.fits import read_fit
from pointillist_hf.data.fitting.runner import fit_captures
from pointillist_hf.evaluation.benchmark_choice import BenchmarkConfig
from pointillist_hf.evaluation.benchmark_making import make_benchmark
from pointillist_hf.evaluation.benchmark_run import EvaluationConfig, evaluate_renders
from pointillist_hf.evaluation.instruments import InstrumentPaths
from pointillist_hf.evaluation.manifest import MANIFEST_FILE, Manifest, read_manifest
from pointillist_hf.evaluation.own_renders import PipelineRun, render_avatar, render_pipeline
from pointillist_hf.geometry.bound_splats import local_to_global
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians
from pointillist_hf.geometry.triangles import face_areas
from pointillist_hf.refinement.dressing import dress_points
from pointillist_hf.rigs.head_rig import HeadRig

FIRST_PERSON = 2_000_000  # no data set has people of these seeds
FACE_COVER, OPAQUE = 0.6, 0.95  # of a template's Gaussians: radius over the root of the area


@dataclass
class Arguments:
    """How many, how large, where to."""

    num_people: int = 8
    num_timesteps: int = 3
    num_views: int = 2
    num_cameras: int = 14
    image_size: int = 256
    fit_steps: int = 400
    num_mean: int = 6
    model: str = "model_cards/pointillist-tiny"
    recognition: str | None = None
    landmarks: str | None = None
    output: str = "outputs/evaluation"


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output = Path(arguments.output)
    config = SyntheticCaptureConfig(
        image_size=arguments.image_size, num_timesteps=6, num_cameras=arguments.num_cameras
    )
    # One more than is shown: the driver.
    captures = write_synthetic_captures(
        output / "captures", arguments.num_people + 1, config, seed=FIRST_PERSON
    )
    benchmark = output / "benchmark"
    if not (benchmark / MANIFEST_FILE).is_file():
        drawn = BenchmarkConfig(
            arguments.num_people,
            arguments.num_timesteps,
            arguments.num_views,
            arguments.image_size,
        )
        make_benchmark(captures, benchmark, drawn, dataset="synthetic people")
    manifest = read_manifest(benchmark)
    renders = output / "renders"
    render_pipeline(PipelineRun(arguments.model), benchmark, manifest, renders / "pipeline")
    render_fits(arguments, benchmark, manifest, renders / "fit")
    render_templates(arguments, benchmark, manifest, renders)
    order = ("fit", "pipeline", "template", "mean avatar")
    results = evaluate_renders(
        benchmark,
        {name: renders / name for name in order},
        output,
        EvaluationConfig(
            paths=InstrumentPaths(
                tracker=Path(arguments.model) / "portrait_tracker",
                recognition=arguments.recognition,
            ),
            landmarks=None if arguments.landmarks is None else Path(arguments.landmarks),
            with_published=True,
        ),
    )
    print((output / "results.md").read_text("utf-8"))
    print(f"{len(results['systems'])} systems: {output / 'index.html'}")


def render_fits(arguments: Arguments, benchmark: Path, manifest: Manifest, folder: Path) -> None:
    """Gaussians fitted to all pictures of a person, the targets among them."""
    output = Path(arguments.output)
    people = [output / "captures" / name for name in manifest.identities]
    config = FitConfig.preset("fast", num_steps=arguments.fit_steps)
    failed = fit_captures(people, output / "fits", config)
    if failed:
        raise RuntimeError(f"Fits failed: {failed}.")
    for person in people:
        avatar = avatar_of_fit(output / "fits" / person.name)
        render_avatar(avatar, benchmark, manifest, person.name, folder)


def avatar_of_fit(folder: Path) -> Avatar:
    person = read_fit(folder)
    corners = person.rest_vertices[person.rig.faces[person.splats.bindings]]
    gaussians = local_to_global(person.splats.to(torch.float64), corners).to(torch.float32)
    return Avatar(gaussians, person.splats.bindings, person.rig, person.rig_params.betas[0])


def render_templates(
    arguments: Arguments, benchmark: Path, manifest: Manifest, renders: Path
) -> None:
    """One Gaussian for each face of the head: the person's colours, or the mean of others'."""
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    own = {
        name: template_avatar(pipe, benchmark / "sources" / f"{name}.png")
        for name in manifest.identities
    }
    for name, avatar in own.items():
        render_avatar(avatar, benchmark, manifest, name, renders / "template")
        others = [one for other, one in own.items() if other != name][: arguments.num_mean]
        mean = mean_avatar(others, pipe.rig)
        render_avatar(mean, benchmark, manifest, name, renders / "mean avatar")


@torch.no_grad()
def template_avatar(pipe: AvatarPipeline, source: Path) -> Avatar:
    tracked = pipe.track_portraits([source])
    view = tracked[0].view(pipe.config.view_size)
    betas = tracked[0].rig_params.betas[0]
    rest, faces = pipe.rig.canonical_vertices(betas[None])[0], pipe.rig.faces
    points = CanonicalPoints(rest[faces].mean(1), torch.arange(len(faces)))
    colored = dress_points(points, view, pipe.rig)
    # Balls as large as their faces, so that no background shines through.
    sizes = FACE_COVER * face_areas(rest, faces).sqrt()
    gaussians = replace(
        colored,
        scales=sizes[:, None].expand(-1, 3),
        opacities=torch.full_like(colored.opacities, OPAQUE),
    )
    return Avatar(gaussians, points.bindings, pipe.rig, betas)


def mean_avatar(avatars: list[Avatar], rig: HeadRig) -> Avatar:
    """Places, sizes and colours of several templates, averaged face by face."""
    clouds = [avatar.gaussians for avatar in avatars]
    mean = {
        name: torch.stack([getattr(cloud, name) for cloud in clouds]).mean(0)
        for name in ("means", "scales", "opacities", "colors")
    }
    betas = torch.stack([avatar.betas for avatar in avatars]).mean(0)
    return Avatar(Gaussians(quats=clouds[0].quats, **mean), avatars[0].bindings, rig, betas)


if __name__ == "__main__":
    main()

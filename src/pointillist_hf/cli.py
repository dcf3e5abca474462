# SPDX-License-Identifier: Apache-2.0
"""Floor 8. The command `pointillist-hf`: each subcommand is a call into the library.

Commands import what they need themselves, so that `--help` answers at once: torch and diffusers
take seconds to load.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

DEFAULT_MODEL = Path("model_cards/pointillist-tiny")  # from the root of the repository
TURNTABLE_FRAMES = 36


class OneLineErrors(TyperGroup):
    """Says what is wrong with the input in one line; a stack trace is for faults of ours."""

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the subcommand."""
        try:
            return super().invoke(ctx)
        except (OSError, ValueError, TypeError, ImportError) as error:
            typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=OneLineErrors, add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
main = app


@app.callback()
def describe() -> None:
    """From one portrait to a drivable 3D Gaussian head."""


@app.command("avatar")
def make_avatar(
    image: Annotated[Path, typer.Argument(help="Portrait: a photograph with one frontal face.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    model: Annotated[
        str | None, typer.Option(help=f"Pipeline folder or Hub id; default: {DEFAULT_MODEL}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same avatar.")] = 0,
    max_points: Annotated[int | None, typer.Option(help="Most points of the avatar.")] = None,
    no_face_detection: Annotated[
        bool, typer.Option("--no-face-detection", help="Frame the largest centred square.")
    ] = False,
    keep_background: Annotated[
        bool, typer.Option("--keep-background", help="Do not replace the background.")
    ] = False,
) -> None:
    """Make an avatar of a portrait: avatar/, avatar.ply, avatar.html and turntable.gif in DIR."""
    if model is None and not DEFAULT_MODEL.is_dir():
        raise FileNotFoundError(
            f"`--model` must be given: the default, {DEFAULT_MODEL}, is a folder of the repository "
            "and is not in the current directory."
        )
    from .exporters.images import write_gif
    from .geometry.cameras import orbit_cameras
    from .models.image_processing_portrait import load_image
    from .pipeline_avatar import AvatarPipeline

    portrait = load_image(image)
    result = AvatarPipeline.from_pretrained(model or DEFAULT_MODEL)(
        portrait,
        seed=seed,
        max_points=max_points,
        detect_face=not no_face_detection,
        remove_background=not keep_background,
    )
    result.avatar.save_pretrained(output / "avatar")
    result.avatar.export(output / "avatar.ply")
    result.avatar.export(output / "avatar.html", title=image.stem)
    azimuths = [360 * i / TURNTABLE_FRAMES for i in range(TURNTABLE_FRAMES)]
    write_gif(result.avatar.render(orbit_cameras(azimuths)), output / "turntable.gif")
    typer.echo(f"{len(result.avatar)} points in {output}")
    for step, seconds in result.timings.items():
        typer.echo(f"{seconds:8.2f} s  {step}")


@app.command("animate")
def animate_avatar(
    avatar: Annotated[Path, typer.Argument(help="Folder of an avatar.")],
    motion: Annotated[
        Path, typer.Argument(help="ARKit coefficients (.csv) or FLAME parameters (.npz).")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .gif or .mp4, or a folder for one PNG per frame."),
    ],
    size: Annotated[int, typer.Option(help="Side of the picture, pixels.")] = 384,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 25.0,
) -> None:
    """Move an avatar by a motion file: Live Link Face, MediaPipe, VHAP."""
    if output.suffix not in ("", ".gif", ".mp4"):
        raise ValueError(f"`--output` must be a .gif, an .mp4 or a folder, got {output.name!r}.")
    from .avatar import Avatar
    from .geometry.cameras import orbit_cameras
    from .rigs.motion_files import read_motion

    person = Avatar.from_pretrained(avatar)
    frames = person.animate(read_motion(motion, person.rig))
    frames.export(output, orbit_cameras([0.0], width=size, height=size), fps=fps)
    typer.echo(f"{len(frames)} frames in {output}")


@app.command("export")
def export_avatar(
    avatar: Annotated[Path, typer.Argument(help="Folder of an avatar.")],
    file: Annotated[Path, typer.Argument(help="File to write; its suffix names the format.")],
) -> None:
    """Write an avatar in the format of the suffix.

    .ply, .splat, .spz, .glb (3D Gaussian Splatting), .ga.ply (GaussianAvatars), .html (a page).
    """
    from .avatar import Avatar

    Avatar.from_pretrained(avatar).export(file)
    typer.echo(f"{file} written")


@app.command("info")
def show_info(
    path: Annotated[Path, typer.Argument(help="Folder of an avatar or of a pipeline.")],
) -> None:
    """Say what a folder holds."""
    if (path / "model_index.json").is_file():
        _describe_pipeline(path)
        return
    if not (path / "avatar.json").is_file():
        raise FileNotFoundError(
            "`path` must be a folder with model_index.json (a pipeline) or avatar.json "
            f"(an avatar), got {path}."
        )
    from .avatar import Avatar

    avatar = Avatar.from_pretrained(path)
    typer.echo(f"avatar of {len(avatar)} points on {type(avatar.rig).__name__}")
    typer.echo(f"{avatar.rig.num_faces} faces, {avatar.rig.num_betas} identity coefficients")
    typer.echo(f"expressions: {', '.join(avatar.rig.expression_names)}")


def _describe_pipeline(path: Path) -> None:
    index = json.loads((path / "model_index.json").read_text())
    typer.echo(f"pipeline {index.get('_class_name')}")
    components = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    for name, class_name in components.items():
        files = [file for file in (path / name).rglob("*") if file.is_file()]
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        typer.echo(f"{megabytes:8.2f} MB  {name}: {class_name or 'none'}")
    for name, value in index.items():
        if name not in components and not name.startswith("_"):
            typer.echo(f"{name}: {value}")


@app.command("convert-flame")
def convert_flame_file(
    path: Annotated[Path, typer.Argument(help="FLAME's .pkl or .npz.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    version: Annotated[
        str | None, typer.Option(help="2020, 2023, 2023_no_jaw or 2023_open; default: by name.")
    ] = None,
) -> None:
    """Convert a FLAME model, so that no pickle is read again. The licence stays FLAME's."""
    from .rigs.flame.model_file import convert_flame

    flame = convert_flame(path, output, version=version)
    typer.echo(f"FLAME {flame.version} in {output}; SHA-256 of the original {flame.sha256}")


@app.command("synthesize")
def synthesize_dataset(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    num_identities: Annotated[int, typer.Option(help="People in the training split.")] = 512,
    num_test: Annotated[int, typer.Option(help="People in the test split.")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 0,
    num_proc: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Make a tokenised data set of synthetic people; an interrupted run goes on."""
    from .data.synthetic_dataset import SyntheticDatasetConfig, build_synthetic_dataset

    config = SyntheticDatasetConfig(num_train=num_identities, num_test=num_test, seed=seed)
    build_synthetic_dataset(output, config, num_proc=num_proc)
    typer.echo(f"{num_identities + num_test} people in {output}")


if __name__ == "__main__":
    main()

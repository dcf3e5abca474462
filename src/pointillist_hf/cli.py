# SPDX-License-Identifier: Apache-2.0
"""Floor 11. The command `pointillist-hf`: each subcommand is a call into the library.

Commands import what they need themselves, so that `--help` answers at once: torch and diffusers
take seconds to load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from .cli_app import serve_app
from .cli_convert import convert_flame_file, convert_michelangelo_file
from .cli_errors import one_line_errors
from .cli_evaluate import evaluate_systems
from .cli_hub import push_folder, show_log, warm_up_kernels

TURNTABLE_FRAMES = 36

Cluster = Annotated[
    str | None,
    typer.Option(help="Scheduler of a dask cluster that does the work, tcp://HOST:8786."),
]


class OneLineErrors(TyperGroup):
    """Says what is wrong with the input in one line; a stack trace is for faults of ours."""

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the subcommand."""
        with one_line_errors():
            return super().invoke(ctx)


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
        str | None,
        typer.Option(help="Pipeline folder or Hub id; default: of the checkout, or of the Hub."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same avatar.")] = 0,
    max_points: Annotated[
        int | None, typer.Option(help="Most points that the generator writes.")
    ] = None,
    refine_steps: Annotated[
        int | None, typer.Option(help="Steps of optimisation against the photograph.")
    ] = None,
    face: Annotated[
        int | None, typer.Option(help="Which face of the photograph, 1 being the largest.")
    ] = None,
    no_face_detection: Annotated[
        bool, typer.Option("--no-face-detection", help="Frame the centred square; no tracker.")
    ] = False,
    keep_background: Annotated[
        bool, typer.Option("--keep-background", help="Leave the background; no tracker.")
    ] = False,
) -> None:
    """Make an avatar of a portrait: avatar/, avatar.ply, avatar.html and turntable.gif in DIR."""
    show_log()
    from .decoding.cpu.first_calls import expect_model
    from .default_model import find_default_model

    source = model or find_default_model()
    expect_model(source)  # before torch is loaded, which takes as long as compiling
    from .exporters.images import write_gif
    from .geometry.cameras import orbit_cameras
    from .pipeline_avatar import AvatarPipeline
    from .portraits.image_processing_portrait import load_image

    portrait = load_image(image)
    pipe = AvatarPipeline.from_pretrained(source)
    result = pipe(
        portrait,
        seed=seed,
        max_points=max_points,
        refine_steps=refine_steps,
        face=face,
        detect_face=not no_face_detection,
        remove_background=not keep_background,
    )
    result.avatar.save_pretrained(output / "avatar")
    result.avatar.export(output / "avatar.ply")
    result.avatar.export(output / "avatar.html", title=image.stem)
    azimuths = [360 * i / TURNTABLE_FRAMES for i in range(TURNTABLE_FRAMES)]
    write_gif(result.avatar.render(orbit_cameras(azimuths)), output / "turntable.gif")
    typer.echo(f"{len(result.avatar)} points in {typer.format_filename(output)}")
    for step, seconds in result.timings.items():
        typer.echo(f"{seconds:8.2f} s  {step}")


@app.command("animate")
def animate_avatar(
    avatar: Annotated[Path, typer.Argument(help="Folder of an avatar.")],
    motion: Annotated[
        Path,
        typer.Argument(help="ARKit coefficients (.csv, .json) or FLAME parameters (.npz, .frame)."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .gif or .mp4, or a folder for one PNG per frame."),
    ],
    size: Annotated[int, typer.Option(help="Side of the picture, pixels.")] = 384,
    fps: Annotated[float, typer.Option(help="Frames per second of the clip.")] = 25.0,
    take_fps: Annotated[
        float | None, typer.Option(help="Of the motion, where its file does not say it.")
    ] = None,
    no_head_rotation: Annotated[
        bool, typer.Option("--no-head-rotation", help="Keep the head still.")
    ] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Change left and right.")] = False,
    percent: Annotated[
        bool | None, typer.Option(help="Strengths count to 100, or to 1; default: judged.")
    ] = None,
    max_gap: Annotated[float, typer.Option(help="Seconds without a face to bridge.")] = 0.5,
    frame_format: Annotated[
        str, typer.Option(help="Of the files in a folder: .png, .ply, .splat, .spz or .glb.")
    ] = ".png",
    landmarks: Annotated[
        Path | None,
        typer.Option(help="FLAME's landmark_embedding_with_eyes.npy, for ARKit on FLAME."),
    ] = None,
) -> None:
    """Move an avatar by a motion file: Live Link Face, MediaPipe, Audio2Expression, VHAP."""
    if output.suffix not in ("", ".gif", ".mp4"):
        raise ValueError(f"`--output` must be a .gif, an .mp4 or a folder, got {output.name!r}.")
    from .avatar import Avatar
    from .exporters.clips import check_clip
    from .geometry.cameras import orbit_cameras
    from .motion.motion_files import read_motion
    from .rigs.flame_rig import take_landmarks

    check_clip(output, width=size, height=size, fps=fps, frame_format=frame_format)
    person = Avatar.from_pretrained(avatar)
    if landmarks is not None:
        take_landmarks(person.rig, landmarks)
    rig_params = read_motion(
        motion,
        person.rig,
        betas=person.betas,
        fps=fps,
        take_fps=take_fps,
        head_rotation=not no_head_rotation,
        mirror=mirror,
        percent=percent,
        max_gap=max_gap,
    )
    view = orbit_cameras([0.0], width=size, height=size)
    frames = person.animate(rig_params)
    frames.export(output, view, fps=fps, frame_format=frame_format)
    typer.echo(f"{len(frames)} frames in {typer.format_filename(output)}")


@app.command("export")
def export_avatar(
    avatar: Annotated[Path, typer.Argument(help="Folder of an avatar.")],
    file: Annotated[Path, typer.Argument(help="File to write; its suffix names the format.")],
    y_down: Annotated[
        bool, typer.Option("--y-down", help="Turn .ply and .splat to the axes of COLMAP.")
    ] = False,
    sh_degree: Annotated[
        int | None, typer.Option(help="Of the harmonics in a .ply or .ga.ply, 0 to 3.")
    ] = None,
    spz_version: Annotated[int | None, typer.Option(help="Of an .spz, 2 or 3.")] = None,
) -> None:
    """Write an avatar in the format of the suffix.

    .ply, .splat, .spz, .glb (3D Gaussian Splatting), .ga.ply (GaussianAvatars), .html (a page).
    """
    from .avatar import Avatar

    given = {"y_down": y_down or None, "sh_degree": sh_degree, "version": spz_version}
    options = {name: value for name, value in given.items() if value is not None}
    Avatar.from_pretrained(avatar).export(file, **options)
    typer.echo(f"{typer.format_filename(file)} written")


@app.command("info")
def show_info(
    path: Annotated[Path, typer.Argument(help="Folder of an avatar, pipeline or data set.")],
    row: Annotated[int, typer.Option(help="Row of a data set to draw.")] = 0,
    split: Annotated[str, typer.Option(help="Split of the row.")] = "train",
    picture: Annotated[Path | None, typer.Option(help="Where to draw the row.")] = None,
) -> None:
    """Say what a folder holds; of a data set, draw a row."""
    if list(path.glob("*.parquet")):
        _describe_dataset(path, split, row, picture)
        return
    if (path / "model_index.json").is_file():
        _describe_pipeline(path)
        return
    if not (path / "avatar.json").is_file():
        raise FileNotFoundError(
            "`path` must be a folder with model_index.json (a pipeline), avatar.json (an avatar) "
            f"or .parquet files (a data set), got {path}."
        )
    from .avatar import Avatar

    avatar = Avatar.from_pretrained(path)
    typer.echo(f"avatar of {len(avatar)} points on {type(avatar.rig).__name__}")
    typer.echo(f"{avatar.rig.num_faces} faces, {avatar.rig.num_betas} identity coefficients")
    typer.echo(f"expressions: {', '.join(avatar.rig.expression_names)}")


def _describe_pipeline(path: Path) -> None:
    from .exporters.json_file import read_json_object

    index = read_json_object(path / "model_index.json")
    typer.echo(f"pipeline {index.get('_class_name')}")
    components = {k: v[1] for k, v in index.items() if isinstance(v, list) and len(v) == 2}
    for name, class_name in components.items():
        files = [file for file in (path / name).rglob("*") if file.is_file()]
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        typer.echo(f"{megabytes:8.2f} MB  {name}: {class_name or 'none'}")
    for name, value in index.items():
        if name not in components and not name.startswith("_"):
            typer.echo(f"{name}: {value}")


def _describe_dataset(path: Path, split: str, row: int, picture: Path | None) -> None:
    from .data.rig_reference import open_saved_rig
    from .data.tokens.dataset import load_token_dataset, open_tokenizer, read_row
    from .data.tokens.row_checks import check_data_set, check_row
    from .data.tokens.row_picture import draw_row

    rows = load_token_dataset(path, split)
    typer.echo(f"data set; {len(rows)} people in split {split}")
    if not 0 <= row < len(rows):
        raise ValueError(f"`--row` must be 0 to {len(rows) - 1}, got {row}.")
    person, tokenizer, rig = read_row(rows, row), open_tokenizer(path), open_saved_rig(path / "rig")
    check_data_set(tokenizer, rig, path)
    check_row(person, tokenizer, rig)
    for name in ("identity", "source", "licence", "rig_hash", "num_points"):
        typer.echo(f"{name}: {person[name]}")
    if picture is not None:
        draw_row(person, path, picture)
        typer.echo(f"{typer.format_filename(picture)} written")


@app.command("synthesize")
def synthesize_captures(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    num_identities: Annotated[int, typer.Option(help="People.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the first person; the others follow.")] = 0,
    image_size: Annotated[int, typer.Option(help="Side of the pictures, pixels.")] = 256,
    num_timesteps: Annotated[int, typer.Option(help="Poses and expressions.")] = 10,
    num_cameras: Annotated[int, typer.Option(help="At most 20.")] = 20,
    resolution: Annotated[str, typer.Option(help="Of the head: full or low.")] = "full",
    num_proc: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Take pictures of synthetic people, in the layout of VHAP; an interrupted run goes on."""
    from .data.captures.synthetic import SyntheticCaptureConfig, write_synthetic_captures

    config = SyntheticCaptureConfig(resolution, image_size, num_timesteps, num_cameras)
    write_synthetic_captures(output, num_identities, config, seed=seed, num_proc=num_proc)
    typer.echo(f"{num_identities} captures in {typer.format_filename(output)}")


@app.command("fit")
def fit_people(
    captures: Annotated[list[Path], typer.Argument(help="Captures, or folders of captures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets a folder for each.")],
    preset: Annotated[str, typer.Option(help="paper or fast.")] = "paper",
    num_steps: Annotated[int | None, typer.Option(help="Other than the preset's.")] = None,
    max_points: Annotated[int | None, typer.Option(help="Most points of a person.")] = None,
    flame: Annotated[Path | None, typer.Option(help="Your FLAME model.")] = None,
    flame_version: Annotated[
        str | None, typer.Option(help="2020, 2023, 2023_no_jaw or 2023_open; default: by name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same fit.")] = 0,
    num_proc: Annotated[int, typer.Option(help="People at the same time.")] = 1,
    cluster: Cluster = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda, which draws with gsplat.")] = "cpu",
) -> None:
    """Fit Gaussians on the faces of the rig to captures; an interrupted run goes on."""
    from .data.captures.reading import find_captures
    from .data.fitting.config import FitConfig
    from .data.fitting.runner import fit_captures

    given = {"num_steps": num_steps, "max_points": max_points, "seed": seed}
    config = FitConfig.preset(preset, **{k: v for k, v in given.items() if v is not None})
    found = find_captures(captures)
    failed = fit_captures(
        found,
        output,
        config,
        flame_path=flame,
        flame_version=flame_version,
        num_proc=num_proc,
        cluster=cluster,
        device=device,
    )
    typer.echo(
        f"{len(found) - len(failed)} of {len(found)} fits in {typer.format_filename(output)}"
    )
    _report_failures(failed)


@app.command("tokenize")
def tokenize_people(
    fits: Annotated[list[Path], typer.Argument(help="Fits, or folders of fits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")],
    num_bins: Annotated[int, typer.Option(help="Bins per axis.")] = 1024,
    token_order: Annotated[str, typer.Option(help="xyzb, yzxb or byzx.")] = "xyzb",
    num_test: Annotated[int, typer.Option(help="People to hold out for tests.")] = 0,
    test_people: Annotated[
        Path | None, typer.Option(help="File of their names instead, one a line.")
    ] = None,
    test_seed: Annotated[int, typer.Option(help="Of the draw of --num-test.")] = 0,
    person_pattern: Annotated[
        str | None, typer.Option(help="Of a fit's name; its group person is who it shows.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the pictures, pixels.")] = 256,
    min_opacity: Annotated[float, typer.Option(help="Of splats that become points.")] = 0.0,
    cube_half_extent: Annotated[
        float | None, typer.Option(help="Of the quantised cube, metres; default: the rig's.")
    ] = None,
    max_outside: Annotated[float, typer.Option(help="Share of points beyond the cube.")] = 0.005,
    licence: Annotated[str, typer.Option(help="That the rows may be passed on under.")] = "other",
    captures: Annotated[
        Path | None, typer.Option(help="Folder of captures, if fits do not say where it is.")
    ] = None,
    flame: Annotated[Path | None, typer.Option(help="Your FLAME model.")] = None,
    flame_version: Annotated[
        str | None, typer.Option(help="2020, 2023, 2023_no_jaw or 2023_open; default: by name.")
    ] = None,
    num_proc: Annotated[int, typer.Option(help="Processes.")] = 1,
    cluster: Cluster = None,
) -> None:
    """Make a tokenised data set of fits; an interrupted run goes on."""
    from .data.tokens.fit_row import TokenizeConfig
    from .data.tokens.people_splits import read_names
    from .data.tokens.tokenize_fits import tokenize_fits

    config = TokenizeConfig(
        num_bins=num_bins,
        token_order=token_order,
        num_test=num_test,
        test_people=() if test_people is None else read_names(test_people),
        test_seed=test_seed,
        person_pattern=person_pattern,
        image_size=image_size,
        min_opacity=min_opacity,
        cube_half_extent=cube_half_extent,
        max_outside=max_outside,
        licence=licence,
    )
    failed = tokenize_fits(
        fits,
        output,
        config,
        captures_dir=captures,
        flame_path=flame,
        flame_version=flame_version,
        num_proc=num_proc,
        cluster=cluster,
    )
    typer.echo(f"data set in {typer.format_filename(output)}")
    _report_failures(failed)


def _report_failures(failed: dict[str, str]) -> None:
    for name, problem in failed.items():
        typer.echo(f"Error: {name}: {problem}", err=True)
    if failed:
        raise typer.Exit(1)


app.command("convert-flame")(convert_flame_file)
app.command("convert-michelangelo")(convert_michelangelo_file)
app.command("evaluate")(evaluate_systems)
app.command("app")(serve_app)
app.command("push")(push_folder)
app.command("warmup")(warm_up_kernels)

if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import sys

import pytest
from fake_flame import write_flame
from PIL import Image
from typer.testing import CliRunner

from pointillist_hf import Avatar
from pointillist_hf.cli import app
from pointillist_hf.exporters.ply import read_ply
from pointillist_hf.rigs.flame.model_file import read_flame


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def pipeline_dir(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def avatar_dir(tiny_avatar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("avatar")
    tiny_avatar.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def portrait_file(portrait, tmp_path_factory):
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    portrait.save(path)
    return path


def test_help_loads_no_torch():
    code = "import sys; from pointillist_hf.cli import app; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert output.split() == [b"False"]
    result = run("--help")
    assert result.exit_code == 0
    for command in (
        "avatar",
        "animate",
        "export",
        "info",
        "convert-flame",
        "synthesize",
        "fit",
        "tokenize",
        "push",
        "warmup",
        "app",
    ):
        assert command in result.stdout


def test_avatar(pipeline_dir, portrait_file, tmp_path):
    output = tmp_path / "me"
    options = ("--model", pipeline_dir, "--seed", 1, "--max-points", 4, "--no-face-detection")
    result = run("avatar", portrait_file, "-o", output, *options)
    assert result.exit_code == 0, result.output
    avatar = Avatar.from_pretrained(output / "avatar")
    assert f"{len(avatar)} points" in result.stdout
    assert "generate_tokens" in result.stdout
    assert len(read_ply(output / "avatar.ply")) == len(avatar)
    assert "<canvas>" in (output / "avatar.html").read_text()
    with Image.open(output / "turntable.gif") as clip:
        assert clip.format == "GIF"
        assert clip.size == (256, 256)


def test_animate(avatar_dir, tmp_path):
    (tmp_path / "take.csv").write_text("jawOpen,eyeBlinkLeft\n0,0\n0.5,0\n1,1\n")
    output = tmp_path / "clip.gif"
    result = run("animate", avatar_dir, tmp_path / "take.csv", "-o", output, "--size", 64)
    assert result.exit_code == 0, result.output
    assert "3 frames" in result.stdout
    with Image.open(output) as clip:
        assert (clip.n_frames, clip.size) == (3, (64, 64))
    result = run("animate", avatar_dir, tmp_path / "take.csv", "-o", tmp_path / "png", "--size", 64)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "png").glob("*.png"))) == 3


def test_animate_by_the_times_of_the_take(avatar_dir, tmp_path):
    rows = "".join(f"{i / 30:.4f},{i / 15},0.1,0,0\n" for i in range(16))
    (tmp_path / "take.csv").write_text("time,jawOpen,HeadYaw,HeadPitch,HeadRoll\n" + rows)
    command = ("animate", avatar_dir, tmp_path / "take.csv", "--size", 32, "--fps", 10)
    ways = {"plain": (), "still": ("--no-head-rotation",), "mirrored": ("--mirror",)}
    pictures = {}
    for way, options in ways.items():
        result = run(*command, "-o", tmp_path / way, *options)
        assert "6 frames" in result.stdout, result.output
        first = sorted((tmp_path / way).glob("*.png"))[0]
        pictures[way] = first.read_bytes()
    assert len({*pictures.values()}) == 3


def test_export(avatar_dir, tiny_avatar, tmp_path):
    result = run("export", avatar_dir, tmp_path / "me.ply")
    assert result.exit_code == 0, result.output
    assert len(read_ply(tmp_path / "me.ply")) == len(tiny_avatar)


def test_info(avatar_dir, pipeline_dir, tiny_avatar):
    assert f"{len(tiny_avatar)} points" in run("info", avatar_dir).stdout
    described = run("info", pipeline_dir).stdout
    assert "AvatarPipeline" in described
    assert "point_generator: PointGeneratorForCausalLM" in described
    assert "max_points: 6" in described


@pytest.mark.slow
def test_three_commands_lead_from_nothing_to_a_data_set(tmp_path):
    small = ("--image-size", 48, "--num-timesteps", 2, "--num-cameras", 4, "--resolution", "low")
    captures, fits, people = tmp_path / "captures", tmp_path / "fits", tmp_path / "people"
    commands = (
        ("synthesize", "-o", captures, "--num-identities", 2, "--seed", 3, *small),
        ("fit", captures, "-o", fits, "--preset", "fast", "--num-steps", 3),
        ("tokenize", fits, "-o", people, "--num-test", 1, "--image-size", 48),
        ("info", people, "--picture", tmp_path / "row.png"),
    )
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, result.output
    assert "identity: person_000000" in result.stdout
    assert (tmp_path / "row.png").is_file()
    assert len([*people.glob("*.parquet")]) == 2


@pytest.mark.slow
def test_a_broken_capture_is_reported_and_the_others_fitted(tmp_path):
    small = ("--image-size", 48, "--num-timesteps", 1, "--num-cameras", 2, "--resolution", "low")
    run("synthesize", "-o", tmp_path / "captures", "--num-identities", 2, *small)
    next(tmp_path.glob("captures/person_0000000/images/*.png")).unlink()
    fit = ("fit", tmp_path / "captures", "-o", tmp_path / "fits", "--preset", "fast")
    result = run(*fit, "--num-steps", 1)
    assert result.exit_code == 1
    assert "1 of 2 fits" in result.stdout
    assert "person_0000000: " in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "fits" / "person_0000001" / "fit.json").is_file()


@pytest.fixture
def bad_input(request, avatar_dir, pipeline_dir, portrait_file, tmp_path):
    """Arguments that cannot work."""
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "avatar").mkdir()
    (tmp_path / "avatar" / "avatar.json").write_text("{")
    model, output = ("--model", pipeline_dir), ("-o", tmp_path / "out")
    return {
        "no such image": ("avatar", tmp_path / "none.jpg", *model, *output),
        "unreadable image": ("avatar", tmp_path / "broken.jpg", *model, *output),
        "no pipeline": ("avatar", portrait_file, "--model", tmp_path, *output),
        "no points": ("avatar", portrait_file, *model, *output, "--max-points", 0),
        "no motion": ("animate", avatar_dir, tmp_path / "none.csv", "-o", tmp_path / "a.gif"),
        "unknown clip": ("animate", avatar_dir, tmp_path / "none.csv", "-o", tmp_path / "a.avi"),
        "unknown format": ("export", avatar_dir, tmp_path / "me.xyz"),
        "no avatar": ("export", tmp_path, tmp_path / "me.ply"),
        "damaged avatar": ("info", tmp_path / "avatar"),
        "nothing known": ("info", tmp_path),
        "no capture": ("fit", tmp_path, *output),
        "too few points": ("fit", tmp_path, *output, "--max-points", 0),
        "unknown preset": ("fit", tmp_path, *output, "--preset", "slow"),
        "no fit": ("tokenize", tmp_path, *output),
        "unknown order": ("tokenize", tmp_path, *output, "--token-order", "bxyz"),
        "nobody": ("synthesize", *output, "--num-identities", 0),
    }[request.param]


@pytest.mark.parametrize(
    ("bad_input", "message"),
    [
        ("no such image", "none.jpg"),
        ("unreadable image", "cannot be read"),
        ("no pipeline", "model_index.json"),
        ("no points", "max_points"),
        ("no motion", "none.csv"),
        ("unknown clip", "must be a .gif, an .mp4 or a folder, got 'a.avi'"),
        ("unknown format", ".ply"),
        ("no avatar", "avatar.json"),
        ("damaged avatar", "line 1"),
        ("nothing known", "model_index.json"),
        ("no capture", "holds none"),
        ("too few points", "max_points"),
        ("unknown preset", "one of paper, fast"),
        ("no fit", "there is none in"),
        ("unknown order", "token_order"),
        ("nobody", "num_identities"),
    ],
    indirect=["bad_input"],
)
def test_bad_input_is_one_line(bad_input, message):
    result = run(*bad_input)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_push_lists_what_it_would_send(avatar_dir, pipeline_dir):
    words = ("--licence", "cc-by-4.0", "--rights", "Nobody: forty random points.", "--dry-run")
    result = run("push", avatar_dir, "me/avatar", *words)
    assert result.exit_code == 0, result.output
    size = (avatar_dir / "avatar.safetensors").stat().st_size
    assert re.search(rf"^ +{size:,d}  [0-9a-f]{{16}}  avatar\.safetensors$", result.stdout, re.M)
    assert "6 files" in result.stdout
    assert "licence cc-by-4.0: nothing was sent" in result.stdout
    result = run("push", pipeline_dir, "me/model", "--dry-run")
    assert result.exit_code == 2
    assert "conditioner has weights whose source and licence are not known" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_warmup_runs_the_kernels(pipeline_dir):
    result = run("warmup", "--model", pipeline_dir)
    assert result.exit_code == 0, result.output
    assert "CPU kernels are ready after" in result.stdout


def test_interruption(portrait_file, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pointillist_hf.portraits.image_processing_portrait.load_image", interrupt)
    result = run("avatar", portrait_file, "-o", tmp_path, "--model", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_convert_flame(tmp_path):
    write_flame(tmp_path / "flame2023.pkl")
    output = tmp_path / "flame.safetensors"
    result = run("convert-flame", tmp_path / "flame2023.pkl", output)
    assert result.exit_code == 0, result.output
    assert "FLAME 2023 in" in result.stdout
    assert read_flame(output).version == "2023"
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    result = run("convert-flame", tmp_path / "bad.pkl", output)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "it names os.system" in result.stderr
    assert result.stderr.count("\n") == 1

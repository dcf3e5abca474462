# SPDX-License-Identifier: Apache-2.0
"""What the commands do with damaged files and odd options: one line, exit code 2, no trace."""

import numpy as np
import pytest
import torch
from damage import DEEP, POINTER, add_tensor, convert, cut, drop_tensor, edit, spoil
from PIL import Image
from typer.testing import CliRunner

from pointillist_hf.cli import app

RIG = "rig/diffusion_pytorch_model.safetensors"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *words):
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
    (line,) = [row for row in result.stderr.splitlines() if row.startswith("Error: ")]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line


def make_picture(room, name, values, **options):
    path = room / name
    Image.fromarray(values).save(path, **options)
    return path


PORTRAITS = [
    ("nothing there", lambda r: r / "none.png", "there is none at"),
    ("a folder", lambda r: r.copy("avatar"), "there is none at"),
    ("empty", lambda r: r.text("e.png", ""), "it is empty"),
    ("text", lambda r: r.text("t.png", "hello"), "no format that is known"),
    ("pointer", lambda r: r.text("p.jpg", POINTER), "git lfs pull"),
    ("heic", lambda r: r.text("h.heic", b"\0\0\0\x18ftypheic" + 99 * b"\0"), "pillow-heif"),
    ("svg", lambda r: r.text("s.svg", "<svg/>"), "it is SVG"),
    ("pdf", lambda r: r.text("s.pdf", "%PDF-1.4"), "it is a PDF"),
    ("postscript", lambda r: r.text("s.eps", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
     "cannot be read"),
    ("small", lambda r: make_picture(r, "s.png", np.zeros((9, 9, 3), "u1")), "at least 64 pixels"),
    ("thin", lambda r: make_picture(r, "s.png", np.zeros((9, 90, 3), "u1")), "at least 64 pixels"),
    ("float 255", lambda r: make_picture(r, "f.tif", np.full((80, 80), 255, "f4")), "[0, 1]"),
    ("nan", lambda r: make_picture(r, "f.tif", np.full((80, 80), np.nan, "f4")), "finite"),
    ("12 bits", lambda r: make_picture(r, "w.png", np.full((80, 80), 4000, "u2")), "16 bits"),
    ("transparent", lambda r: make_picture(r, "n.png", np.zeros((80, 80, 4), "u1")), "transparent"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "word"), [row[1:] for row in PORTRAITS], ids=[r[0] for r in PORTRAITS]
)
def test_portraits(room, make, word):
    path = make(room)
    output = room / "out"
    refused(run("avatar", path, "-o", output, "--model", room.whole / "pipeline"), "`image`", word)
    assert not output.exists()


def file_of(part):
    name = {"rig": "diffusion_pytorch_model.safetensors"}.get(part, "model.safetensors")
    return f"pipeline/{part}/{name}"


NETWORKS = ("conditioner", "point_generator", "gaussian_decoder", "rig_regressor")
PIPELINES = [
    *((f"{part} pointer", lambda r, p=part: (r / file_of(p)).write_bytes(POINTER), "git lfs pull")
      for part in NETWORKS),
    *((f"{part} cut", lambda r, p=part: cut(r / file_of(p)), "damaged") for part in NETWORKS),
    *((f"{part} lacks", lambda r, p=part: drop_tensor(r / file_of(p)), "missing weights")
      for part in NETWORKS),
    *((f"{part} nan", lambda r, p=part: spoil(r / file_of(p)), "not finite") for part in NETWORKS),
    ("more weights", lambda r: add_tensor(r / file_of("gaussian_decoder")), "unexpected weights"),
    ("whole weights",
     lambda r: convert(r / file_of("conditioner"), "embed_kinds.weight", torch.int64),
     "weights must be floating point"),
    ("other start", lambda r: edit(r / "pipeline/tokenizer/tokenizer_config.json", bos_token="x"),
     "`bos_token` must be '<s>'"),
    ("no weights", lambda r: (r / file_of("conditioner")).unlink(), "model.safetensors"),
    ("99 layers", lambda r: edit(r / "pipeline/point_generator/config.json", num_hidden_layers=99),
     "weights"),
    ("10^9 layers", lambda r: edit(r / "pipeline/conditioner/config.json",
                                   point_cloud_config={"num_hidden_layers": 10**9}),
     "`num_hidden_layers` must be a whole number"),
    ("nan angle", lambda r: edit(r / "pipeline/rig_regressor/config.json", max_angle=float("nan")),
     "`max_angle` must be a finite number"),
    ("steep rope", lambda r: edit(r / "pipeline/point_generator/config.json", rope_theta=-1.0),
     "`rope_theta` must be a finite number"),
    ("no heads", lambda r: edit(r / "pipeline/point_generator/config.json", num_attention_heads=0),
     "`num_attention_heads`"),
    ("another order", lambda r: edit(r / "pipeline/tokenizer/tokenizer_config.json",
                                     token_order="xyzb"), "must fit `tokenizer.token_order`"),
    ("another cube", lambda r: edit(r / "pipeline/tokenizer/tokenizer_config.json",
                                    cube_half_extent=0.4), "must fit `tokenizer.cube_half_extent`"),
    ("other faces", lambda r: edit(r / "pipeline/tokenizer/tokenizer_config.json",
                                   num_faces=3681), "`tokenizer.num_faces` must fit"),
    ("other bins", lambda r: edit(r / "pipeline/tokenizer/tokenizer_config.json", num_bins=65),
     "must fit `tokenizer.num_bins`"),
    ("moved cube", lambda r: edit(r / "pipeline/gaussian_decoder/config.json",
                                  cube_center=[0.0, 0.0, 0.0]), "`gaussian_decoder.config.cube"),
    ("other frame", lambda r: edit(r / "pipeline/image_processor/preprocessor_config.json",
                                   size=84), "`image_processor.size`"),
    ("rig lacks", lambda r: drop_tensor(r / file_of("rig"), "posedirs"), "`posedirs`"),
    ("rig nan", lambda r: spoil(r / file_of("rig"), "shapedirs"), "`shapedirs`"),
    ("rig circle", lambda r: spoil(r / file_of("rig"), "parents", 4, 1), "`parents`"),
    ("rig cut", lambda r: cut(r / file_of("rig")), "must be a whole pipeline"),
    ("index a list", lambda r: r.text("pipeline/model_index.json", "[]"), "must be a whole"),
    ("index null", lambda r: r.text("pipeline/model_index.json", "null"), "must be a whole"),
    ("index deep", lambda r: r.text("pipeline/model_index.json", DEEP), "must be a whole"),
    ("index cut", lambda r: cut(r / "pipeline/model_index.json"), "model_index.json"),
    ("no rig", lambda r: edit(r / "pipeline/model_index.json", "rig"), "rig"),
    ("nan temperature", lambda r: edit(r / "pipeline/model_index.json", temperature=float("nan")),
     "`temperature`"),
    ("huge cloud", lambda r: edit(r / "pipeline/model_index.json", max_points=10**30),
     "`max_points`"),
    ("config list", lambda r: r.text("pipeline/conditioner/config.json", "[]"), "conditioner"),
    ("config deep", lambda r: r.text("pipeline/conditioner/config.json", DEEP), "deep"),
    ("no tokenizer", lambda r: (r / "pipeline/tokenizer/tokenizer_config.json").unlink(), ""),
    ("tokenizer list", lambda r: r.text("pipeline/tokenizer/tokenizer_config.json", "[]"), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "word"), [row[1:] for row in PIPELINES], ids=[r[0] for r in PIPELINES]
)
def test_pipelines(room, harm, word):
    room.copy("pipeline")
    harm(room)
    options = ("--model", room / "pipeline", "--no-face-detection", "--keep-background")
    refused(run("avatar", room.whole / "face.png", "-o", room / "out", *options), word)


INFOS = [
    ("avatar a list", "avatar", lambda r: r.text("avatar/avatar.json", "[]"), "JSON object"),
    ("avatar empty", "avatar", lambda r: r.text("avatar/avatar.json", ""), "cannot be read"),
    ("avatar deep", "avatar", lambda r: r.text("avatar/avatar.json", DEEP), "cannot be read"),
    ("avatar lacks", "avatar", lambda r: edit(r / "avatar/avatar.json", "rig_class"), "rig_class"),
    ("tensor lacks", "avatar", lambda r: drop_tensor(r / "avatar/avatar.safetensors"), "betas"),
    ("tensors nan", "avatar", lambda r: spoil(r / "avatar/avatar.safetensors"), "finite"),
    (
        "bindings",
        "avatar",
        lambda r: spoil(r / "avatar/avatar.safetensors", "bindings", 10**6),
        "bindings",
    ),
    ("rig lacks", "avatar", lambda r: drop_tensor(r / f"avatar/{RIG}", "faces"), "faces"),
    (
        "rig floats",
        "avatar",
        lambda r: convert(r / f"avatar/{RIG}", "faces", torch.float32),
        "faces",
    ),
    (
        "pipeline a list",
        "pipeline",
        lambda r: r.text("pipeline/model_index.json", "[]"),
        "JSON object",
    ),
    ("rows cut", "data", lambda r: cut(next((r / "data").glob("*.parquet"))), "cannot be read"),
    ("rows empty", "data", lambda r: r.text("data/train-00000-of-00001.parquet", ""), "data"),
    (
        "rows text",
        "data",
        lambda r: r.text("data/train-00000-of-00001.parquet", "hello"),
        "cannot be read",
    ),
    (
        "other rig",
        "data",
        lambda r: edit(r / "data/rig/config.json", _class_name="Hand"),
        "not known",
    ),
    (
        "no tokenizer",
        "data",
        lambda r: (r / "data/tokenizer/tokenizer_config.json").unlink(),
        "tokenizer",
    ),
    (
        "other bins",
        "data",
        lambda r: edit(r / "data/tokenizer/tokenizer_config.json", num_bins=32),
        "`input_ids`",
    ),
    (
        "other faces",
        "data",
        lambda r: edit(r / "data/tokenizer/tokenizer_config.json", num_faces=9),
        "faces",
    ),
    ("rig spoilt", "data", lambda r: spoil(r / f"data/{RIG}", "v_template", 0.5), "`rig_hash`"),
]


@pytest.mark.parametrize(
    ("name", "harm", "word"), [row[1:] for row in INFOS], ids=[row[0] for row in INFOS]
)
def test_infos(room, name, harm, word):
    room.copy(name)
    harm(room)
    refused(run("info", room / name), word)


OPTIONS = [
    (("avatar", "FACE", "--model", "PIPELINE", "--seed", -1), "`seed`"),
    (("avatar", "FACE", "--model", "PIPELINE", "--seed", 2**64), "`seed`"),
    (("avatar", "FACE", "--model", "PIPELINE", "--max-points", 0), "`max_points`"),
    (("avatar", "FACE", "--model", "PIPELINE", "--max-points", 10**30), "`max_points`"),
    (("avatar", "FACE", "--model", "NOWHERE"), "nowhere"),
    (("animate", "AVATAR", "TAKE", "--size", 0), "0"),
    (("animate", "AVATAR", "TAKE", "--size", 200_000), "200000"),
    (("animate", "AVATAR", "TAKE", "--fps", 0), "fps"),
    (("animate", "AVATAR", "TAKE", "--fps", "nan"), "fps"),
    (("animate", "AVATAR", "TAKE", "--max-gap", "nan"), "max_gap"),
    (("animate", "NOWHERE", "TAKE"), "avatar.json"),
    (("animate", "AVATAR", "NOWHERE"), "nowhere"),
    (("synthesize", "--num-identities", 0), "`num_identities`"),
    (("synthesize", "--num-identities", 10**12), "`num_identities`"),
    (("synthesize", "--seed", -1), "`seed`"),
    (("synthesize", "--image-size", 200_000), "`image_size`"),
    (("synthesize", "--image-size", 1), "`image_size`"),
    (("synthesize", "--num-timesteps", 0), "`num_timesteps`"),
    (("synthesize", "--num-cameras", 99), "`num_cameras`"),
    (("synthesize", "--resolution", "high"), "`resolution`"),
    (("synthesize", "--resolution", "low", "--num-proc", 0), "`num_proc`"),
    (("fit", "CAPTURES", "--preset", "slow"), "`preset`"),
    (("fit", "CAPTURES", "--num-steps", -1), "`num_steps`"),
    (("fit", "CAPTURES", "--num-steps", 10**30), "`num_steps`"),
    (("fit", "CAPTURES", "--seed", 2**64), "`seed`"),
    (("fit", "CAPTURES", "--max-points", 0), "`max_points`"),
    (("fit", "CAPTURES", "--num-proc", 0), "`num_proc`"),
    (("fit", "NOWHERE"), "`captures`"),
    (("tokenize", "FITS", "--num-bins", 10**9), "`num_bins`"),
    (("tokenize", "FITS", "--num-bins", 1), "`num_bins`"),
    (("tokenize", "FITS", "--token-order", "zyxb"), "`token_order`"),
    (("tokenize", "FITS", "--image-size", 10**6), "`image_size`"),
    (("tokenize", "FITS", "--licence", ""), "`licence`"),
    (("tokenize", "FITS", "--licence", "mit\nname: x"), "`licence`"),
    (("tokenize", "FITS", "--min-opacity", "nan"), "`min_opacity`"),
    (("tokenize", "FITS", "--max-outside", "-1"), "`max_outside`"),
    (("tokenize", "FITS", "--cube-half-extent", "inf"), "`cube_half_extent`"),
    (("tokenize", "FITS", "--num-test", 5), "`num_test`"),
    (("tokenize", "FITS", "--num-test", -1), "`num_test`"),
    (("tokenize", "NOWHERE"), "`fits`"),
]


@pytest.mark.parametrize(("arguments", "word"), OPTIONS)
def test_options(room, arguments, word):
    places = {
        "FACE": room.whole / "face.png",
        "PIPELINE": room.whole / "pipeline",
        "AVATAR": room.whole / "avatar",
        "TAKE": room.whole / "take.csv",
        "CAPTURES": room.whole / "captures",
        "FITS": room.whole / "fits",
        "NOWHERE": room / "nowhere",
    }
    output = room / ("clip.gif" if arguments[0] == "animate" else "out")
    framing = ("--no-face-detection", "--keep-background") if arguments[0] == "avatar" else ()
    given = [places.get(argument, argument) for argument in arguments]
    refused(run(*given, "-o", output, *framing), word)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "Memory is not enough"),
        (PermissionError(13, "Permission denied", "me"), "change its rights"),
        (OSError(28, "No space left on device", "me"), "free some space"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Memory is not enough"),
        (FloatingPointError("The loss is nan at step 3."), "The loss is nan"),
        (TypeError("`image` must be a PIL image"), "`image`"),
        (Image.DecompressionBombError("large"), "large"),
    ],
)
def test_what_the_user_can_mend_is_one_line(monkeypatch, room, error, word):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("pointillist_hf.avatar.Avatar.from_pretrained", fail)
    refused(run("export", room.whole / "avatar", room / "me.ply"), word)


@pytest.mark.parametrize(
    "error", [TypeError("unsupported operand"), KeyError("a"), RuntimeError("x"), AssertionError()]
)
def test_faults_of_ours_keep_their_trace(monkeypatch, room, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("pointillist_hf.avatar.Avatar.from_pretrained", fail)
    assert run("export", room.whole / "avatar", room / "me.ply").exception is error

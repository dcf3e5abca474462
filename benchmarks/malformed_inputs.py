# SPDX-License-Identifier: Apache-2.0
"""Feeds the commands and calls with inputs that cannot be, and counts what they make of them.

    python benchmarks/malformed_inputs.py [--output malformed.json] [--only avatar]

An outcome is clear (refused with the thing, the rule and what to do), unclear (refused without one
of them), a trace, silent (taken although it cannot be), or a hang. Everything is made at tiny size
in a temporary folder; the cases are drawn up by rule, the same in every run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="malformed_")

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pointillist_hf import (
    Avatar,
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PointTokenizer,
    ProceduralHeadRig,
    RigRegressor,
)
from pointillist_hf.cli import app
from pointillist_hf.cli_errors import explain
from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, write_synthetic_captures
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.runner import fit_capture
from pointillist_hf.data.tokens.fit_row import TokenizeConfig
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Cameras, CanonicalPoints, Gaussians
from pointillist_hf.portraits.picture_reading import load_image
from pointillist_hf.rendering import rasterize
from pointillist_hf.training import recipes
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.loop import LoopConfig

LIMIT = 60  # seconds from which on a case hangs
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 12345\n" % 0
NAN, INF = float("nan"), float("inf")
RULE = re.compile(
    "must|should|cannot|at most|needs|no option|no expression|no joint|no region|no such file|"
    "is refused|is damaged|not enough|not installed|has no options|ends? in"
)
THING = re.compile(r"`|/|--|\.\w{2,5}\b")

Act = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One input: its door, what is wrong with it, and how it is tried in a folder of its own."""

    door: str
    label: str
    act: Act
    may_work: bool = False  # whether it counts as clear if it is taken


class Hang(BaseException):
    """The time was over."""


# whole things -------------------------------------------------------------------------------------


def build_whole(root: Path) -> None:
    """Pipeline, avatar, data set, capture, fit, photograph and motion, to be copied and damaged."""
    torch.manual_seed(0)
    rig = ProceduralHeadRig("low")
    tokenizer = PointTokenizer(
        num_bins=64, num_faces=rig.num_faces, token_order="yzxb",
        cube_center=(0.0, -0.035, -0.03), cube_half_extent=0.25,
    )  # fmt: skip
    generator = PointGeneratorForCausalLM(recipes.build_generator_config("nano", tokenizer))
    decoder = recipes.build_decoder_config("nano", tokenizer, generator.config)
    pipe = AvatarPipeline(
        recipes.build_image_processor("nano"), rig,
        AvatarConditioner(recipes.build_conditioner_config("nano", tokenizer)), tokenizer,
        generator, GaussianDecoder(decoder),
        RigRegressor(recipes.build_regressor_config("nano", rig)), max_points=6,
    )  # fmt: skip
    pipe.save_pretrained(root / "pipeline")
    means = rig.v_template[rig.faces[::90]].mean(1)
    count = len(means)
    ones = torch.ones(count)
    gaussians = Gaussians(
        means, torch.randn(count, 4), 0.01 * torch.ones(count, 3), 0.5 * ones, torch.rand(count, 3)
    )
    Avatar(
        gaussians, torch.arange(0, rig.num_faces, 90), rig, torch.zeros(rig.num_betas)
    ).save_pretrained(root / "avatar")
    data = SyntheticDatasetConfig(
        num_train=1, num_test=0, num_skin_points=40, hair_budget=20, num_portraits=1, num_views=2,
        image_size=32, num_rig_points=64, num_bins=64,
    )  # fmt: skip
    build_synthetic_dataset(root / "data", data, show_progress=False)
    taken = SyntheticCaptureConfig(
        "low", image_size=32, num_timesteps=2, num_cameras=3, hair_density=0.05
    )
    write_synthetic_captures(root / "captures", 1, taken, show_progress=False)
    name = next((root / "captures").iterdir()).name
    config = FitConfig.preset("fast", num_steps=2)
    fit_capture(root / "captures" / name, root / "fits" / name, config, show_progress=False)
    face = Image.effect_noise((96, 96), 60).convert("RGB")
    face.save(root / "face.png")
    (root / "take.csv").write_text("jawOpen,eyeBlinkLeft\n0,0\n0.5,1\n")


# damage -------------------------------------------------------------------------------------------

JSON_TEXTS = {
    "empty": b"", "cut": b'{"a": [1, ', "list": b"[]", "null": b"null", "number": b"7",
    "string": b'"x"', "empty object": b"{}", "deep": b"[" * 200_000, "bytes": b"\xff\xfe\x00\x01",
    "pointer": POINTER,
}  # fmt: skip
# What configurations hold besides, and nothing depends on.
NEUTRAL = {
    "architectures", "dtype", "initializer_range", "transformers_version", "model_type",
    "image_processor_type", "bos_token_id", "eos_token_id", "pad_token_id", "backend",
    "added_tokens_decoder", "model_max_length"}  # fmt: skip
INDISPENSABLE = {"avatar.json", "fit.json", "transforms_train.json"}
FINE = {("face_height", "minus")}  # a frame may begin below the face
JSON_VALUES = {
    "null": None,
    "list": [],
    "text": "x",
    "minus": -1,
    "huge": 1e30,
    "nan": NAN,
    "object": {},
}


def json_damage(path: Path, keys: int = 6) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Ways to damage a JSON file, by name."""
    for label, content in JSON_TEXTS.items():
        if label == "empty object" and path.parent.name == "rig":
            continue  # all fields of a rig have defaults, and its arrays say the rest
        yield f"{path.name} {label}", lambda p, c=content: p.write_bytes(c)
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in [k for k in values if not k.startswith("_") and k not in NEUTRAL][:keys]:
        if path.name in INDISPENSABLE:  # other files' fields have defaults
            yield f"{path.name} lacks {key}", lambda p, k=key: _edit(p, k)
        for label, value in JSON_VALUES.items():
            if (key, label) in FINE or (key.startswith("depth_") and label == "null"):
                continue
            yield (
                f"{path.name} {key} {label}",
                lambda p, k=key, v=value: _edit(p, k, v, change=True),
            )


def _edit(path: Path, key: str, value: object = None, *, change: bool = False) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop(key, None)
    path.write_text(json.dumps({**values, key: value} if change else values), encoding="utf-8")


def file_damage() -> dict[str, Callable[[Path], None]]:
    """Ways to damage any binary file."""
    shares = {f"cut at {s:.0%}": s for s in (0.0, 0.01, 0.3, 0.7, 0.99)}
    found = {
        k: lambda p, s=s: p.write_bytes(p.read_bytes()[: int(s * p.stat().st_size)])
        for k, s in shares.items()
    }
    found["pointer"] = lambda p: p.write_bytes(POINTER)
    found["text"] = lambda p: p.write_text("hello")
    found["missing"] = lambda p: p.unlink()
    found["a folder"] = lambda p: (p.unlink(), p.mkdir())
    return found


def tensor_damage(path: Path, names: int = 99) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Ways to damage a .safetensors file."""
    yield from file_damage().items()
    tensors = load_file(path)
    for name in list(tensors)[:names]:
        if not name.startswith("mask_"):  # regions that an earlier head did not have
            yield f"lacks {name}", lambda p, n=name: _change(p, lambda t: t.pop(n))
        yield (
            f"longer {name}",
            lambda p, n=name: _change(p, lambda t: t.update({n: torch.cat([t[n], t[n]])})),
        )
        if tensors[name].is_floating_point():
            yield (
                f"nan in {name}",
                lambda p, n=name: _change(p, lambda t: t[n].view(-1).__setitem__(0, NAN)),
            )
            yield (
                f"whole {name}",
                lambda p, n=name: _change(p, lambda t: t.update({n: t[n].long()})),
            )
        else:
            yield (
                f"far {name}",
                lambda p, n=name: _change(p, lambda t: t[n].view(-1).__setitem__(-1, 10**6)),
            )


def _change(path: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})


# cases --------------------------------------------------------------------------------------------


def run_command(*arguments: object) -> object:
    """What the command did, as typer's runner says."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_in(place: Path, command: tuple) -> object:
    """What a command did, {out} in it being in the folder of the case."""
    return run_command(*(str(a).replace("{out}", str(place / "out")) for a in command))


def damaged(root: Path, door: str, part: str, file: str, harm: Callable, *command: object) -> Act:
    """A case: a copy of a part with one file damaged, given to a command; {} is the copy."""

    def act(place: Path) -> object:
        source = root / part
        shutil.copytree(source, place / part)
        harm(place / part / file)
        filled = [
            str(a).replace("{}", str(place / part)).replace("{out}", str(place / "out"))
            for a in command
        ]
        return run_command(door, *filled)

    return act


def portrait_cases(root: Path) -> Iterator[Case]:
    """Files that are no portraits."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 80, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "tga", "ico", "ppm", "jp2", "avif"):
        buffer = root / f"noise.{suffix}"
        try:
            noise.save(buffer)
        except (OSError, KeyError, ValueError):
            continue
        whole = buffer.read_bytes()
        for share in (0.0, 0.02, 0.1, 0.3, 0.6):
            yield picture_case(
                root, f"{suffix} cut at {share:.0%}", whole[: int(share * len(whole))], suffix
            )
        for _ in range(4):
            at = sorted(rng.integers(0, min(len(whole), 40), 6).tolist())
            spoilt = bytearray(whole)
            for place in at:
                spoilt[place] ^= 0xFF
            # Some of these bytes are colours or comments, and the picture is one still.
            yield replace(
                picture_case(root, f"{suffix} header {at}", bytes(spoilt), suffix), may_work=True
            )
    texts = {
        "html": b"<html>",
        "heic": b"\0\0\0\x18ftypheic" + bytes(90),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n",
        "svg": b"<svg/>",
        "pdf": b"%PDF-1.4",
        "jxl": b"\xff\x0a" + bytes(90),
        "lfs": POINTER,
        "zip": b"PK\3\4" + bytes(90),
        "zeros": bytes(5000),
    }
    for label, content in texts.items():
        yield picture_case(root, label, content, "jpg")
    arrays = {
        "12 bits": np.full((80, 80), 4095, "u2"), "floats to 255": np.full((80, 80), 255, "f4"),
        "nan": np.full((80, 80), NAN, "f4"), "negative": np.full((80, 80), -1, "i4"),
        "32 bits": np.full((80, 80), 2**30, "i4"), "one pixel": np.zeros((1, 1, 3), "u1"),
        "thin": np.zeros((4000, 2, 3), "u1"), "nothing opaque": np.zeros((80, 80, 4), "u1"),
    }  # fmt: skip
    for label, array in arrays.items():
        Image.fromarray(array).save(root / "array.tif")
        yield picture_case(root, label, (root / "array.tif").read_bytes(), "tif")


def picture_case(root: Path, label: str, content: bytes, suffix: str) -> Case:
    """A file given to the command and to the library."""

    def act(place: Path) -> object:
        path = place / f"face.{suffix}"
        path.write_bytes(content)
        return run_command(
            "avatar",
            path,
            "-o",
            place / "out",
            "--model",
            root / "pipeline",
            "--no-face-detection",
            "--keep-background",
        )

    return Case("avatar", f"picture {label}", act)


def pipeline_cases(root: Path) -> Iterator[Case]:
    """Pipelines with a damaged file."""
    command = (
        root / "face.png",
        "-o",
        "{out}",
        "--model",
        "{}",
        "--no-face-detection",
        "--keep-background",
    )
    for file in sorted((root / "pipeline").rglob("*.json")):
        name = file.relative_to(root / "pipeline")
        if file.name == "generation_config.json":
            continue
        for label, harm in json_damage(file):
            yield Case(
                "avatar",
                f"pipeline/{name.parent} {label}",
                damaged(root, "avatar", "pipeline", str(name), harm, *command),
            )
    for file in sorted((root / "pipeline").rglob("*.safetensors")):
        name = file.relative_to(root / "pipeline")
        for label, harm in tensor_damage(file, names=4 if name.parts[0] != "rig" else 12):
            yield Case(
                "avatar",
                f"pipeline/{name} {label}",
                damaged(root, "avatar", "pipeline", str(name), harm, *command),
            )


def avatar_cases(root: Path) -> Iterator[Case]:
    """Avatars with a damaged file."""
    for door, command in (("info", ("{}",)), ("export", ("{}", "{out}.ply"))):
        for label, harm in json_damage(root / "avatar" / "avatar.json"):
            yield Case(
                door,
                f"avatar {label}",
                damaged(root, door, "avatar", "avatar.json", harm, *command),
            )
        for file in ("avatar.safetensors", "rig/diffusion_pytorch_model.safetensors"):
            for label, harm in tensor_damage(root / "avatar" / file, names=10):
                yield Case(
                    door,
                    f"avatar {file} {label}",
                    damaged(root, door, "avatar", file, harm, *command),
                )


def data_cases(root: Path) -> Iterator[Case]:
    """Data sets, captures and fits with a damaged file."""
    for part, door, command in (
        ("data", "info", ("{}",)),
        ("captures", "fit", ("{}", "-o", "{out}", "--preset", "fast", "--num-steps", "1")),
        ("fits", "tokenize", ("{}", "-o", "{out}", "--captures", str(root / "captures"))),
    ):
        for file in sorted(p for p in (root / part).rglob("*") if p.is_file())[:14]:
            name = str(file.relative_to(root / part))
            damages = json_damage(file, 3) if file.suffix == ".json" else file_damage().items()
            if file.suffix == ".safetensors":
                damages = tensor_damage(file, names=10)
            if file.suffix in (".md", ".lock") or file.name == "canonical_flame_param.npz":
                continue  # nothing is read from these
            for label, harm in damages:
                # The end of a PNG holds no pixels, and masks may be absent, with a warning.
                is_absent = "fg_masks" in name and label in ("missing", "a folder")
                if is_absent or (file.suffix == ".png" and label == "cut at 99%"):
                    continue
                yield Case(
                    door, f"{part}/{name} {label}", damaged(root, door, part, name, harm, *command)
                )


def option_cases(root: Path) -> Iterator[Case]:
    """Options with values that cannot be."""
    numbers = ("-1", "0", "nan", "inf", "1e30", str(10**30), str(2**64), "x", "", "1.5", "-inf")
    face, output = root / "face.png", ("-o", "{out}")
    doors = {
        "avatar": (
            (
                face,
                "--model",
                root / "pipeline",
                *output,
                "--no-face-detection",
                "--keep-background",
            ),
            {"seed": "0", "max-points": ""},
        ),
        "animate": (
            (root / "avatar", root / "take.csv", "-o", "{out}.gif"),
            {
                "size": "",
                "fps": "1.5",
                "take-fps": "1.5",
                "max-gap": f"0 1.5 inf 1e30 {10**30} {2**64}",
            },
        ),
        "synthesize": (
            output,
            {
                "num-identities": "",
                "seed": "0 1.5",
                "image-size": "",
                "num-timesteps": "",
                "num-cameras": "",
                "num-proc": "",
                "resolution": "",
            },
        ),
        "fit": (
            (root / "captures", *output, "--preset", "fast"),
            {
                "num-steps": "",
                "max-points": "",
                "seed": "0",
                "num-proc": "",
                "device": "",
                "preset": "",
            },
        ),
        "tokenize": (
            (root / "fits", *output),
            {
                "num-bins": "",
                "token-order": "",
                "num-test": "0",
                "image-size": "",
                "min-opacity": "0",
                "cube-half-extent": "1.5",
                "max-outside": "0",
                "num-proc": "",
            },
        ),
        "export": ((root / "avatar", "{out}.ply"), {"sh-degree": "0", "spz-version": ""}),
    }
    for door, (given, options) in doors.items():
        for option, allowed in options.items():
            for number in numbers:
                if number in allowed.split() and number:
                    continue

                command = (door, *given, f"--{option}={number}")
                yield Case(door, f"--{option}={number}", partial(run_in, command=command))


def call_cases(root: Path) -> Iterator[Case]:
    """Calls of the library."""
    pipe = AvatarPipeline.from_pretrained(root / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    avatar = Avatar.from_pretrained(root / "avatar")
    face = Image.open(root / "face.png")
    plain = {"detect_face": False, "remove_background": False}
    values = {
        "nan": NAN,
        "inf": INF,
        "minus": -1,
        "text": "x",
        "huge": 10**30,
        "half": 1.5,
        "list": [1, 2, 3],
        "none": None,
        "object": object(),
        "true": True,
    }
    fine = {("seed", "huge"): False}
    for option in (
        "seed",
        "max_points",
        "temperature",
        "min_p",
        "guidance_scale",
        "num_candidates",
        "grammar",
        "engine",
        "num_return_sequences",
        "refine_steps",
    ):
        for label, value in values.items():
            optional = value is None and option not in ("seed", "engine", "num_return_sequences")
            if (
                optional
                or (option in ("temperature", "guidance_scale") and label in ("half",))
                or (fine.get((option, label)))
            ):
                continue
            yield Case(
                "pipeline call",
                f"{option} {label}",
                lambda _, o=option, v=value: pipe(face, **plain, **{o: v}),
            )
    for option in (
        "top_k",
        "top_p",
        "num_beams",
        "do_sample",
        "max_new_tokens",
        "penalty_alpha",
        "assistant_model",
        "prompt",
    ):
        yield Case("pipeline call", option, lambda _, o=option: pipe(face, **plain, **{o: 1}))
    images = {
        "none": None,
        "number": 3,
        "empty": [],
        "bytes": b"x",
        "flat": np.zeros((9, 9)),
        "int": np.zeros((90, 90, 3), int),
        "nan": np.full((90, 90, 3), NAN),
        "big": np.full((90, 90, 3), 9.0),
        "batch": torch.zeros(2, 3, 90, 90),
        "void": np.zeros((0, 0, 3)),
    }
    for label, image in images.items():
        yield Case("pipeline call", f"image {label}", lambda _, i=image: pipe(i, **plain))
        if label != "empty":
            yield Case("load_image", label, lambda _, i=image: load_image(i))
    for name in ("betas", "expression", "transl", "jaw_pose", "global_orient"):
        for value in (NAN, INF):
            neutral = pipe.rig.neutral()
            params = replace(neutral, **{name: getattr(neutral, name) + value})
            yield Case(
                "pipeline call",
                f"{name} {value}",
                lambda _, p=params: pipe(face, rig_params=p, **plain),
            )
            yield Case("rig", f"{name} {value}", lambda _, p=params: pipe.rig(p))
            if name != "betas":
                yield Case(
                    "animate", f"{name} {value}", lambda _, p=params: avatar.animate(p).render()
                )
    for dtype in ("auto", "int8", torch.int8, 7, "x", [], torch.bool):
        for word in ("dtype", "torch_dtype"):
            yield Case(
                "from_pretrained",
                f"{word} {dtype}",
                lambda _, w=word, d=dtype: AvatarPipeline.from_pretrained(
                    root / "pipeline", **{w: d}
                ),
            )
    yield from settings_cases(values)
    yield from picture_calls(avatar)
    yield from token_calls(pipe.tokenizer)
    for split in ("", "*", "../x", "test", "train\n", 3):
        yield Case(
            "load_people", f"split {split!r}", lambda _, s=split: load_people(root / "data", s)
        )


def settings_cases(values: dict[str, object]) -> Iterator[Case]:
    """Records of settings with fields that cannot be."""
    for kind in (
        LoopConfig,
        FitConfig,
        TokenizeConfig,
        SyntheticDatasetConfig,
        SyntheticCaptureConfig,
    ):
        for field in fields(kind):
            if field.type in ("bool", "str") or field.name in ("output_dir", "show_progress"):
                continue
            for label in ("nan", "inf", "minus", "text"):
                must = {"output_dir": "run"} if kind is LoopConfig else {}
                yield Case(
                    kind.__name__,
                    f"{field.name} {label}",
                    lambda _, k=kind, n=field.name, v=values[label], m=must: k(**m, **{n: v}),
                )


def picture_calls(avatar: Avatar) -> Iterator[Case]:
    """Cameras and backgrounds."""
    camera = orbit_cameras([0.0], width=16, height=16)
    for name in ("viewmats", "Ks"):
        for value in (NAN, INF):
            spoilt = replace(camera, **{name: getattr(camera, name) * value})
            yield Case("render", f"{name} {value}", lambda _, c=spoilt: avatar.render(c))
            yield Case(
                "rasterize", f"{name} {value}", lambda _, c=spoilt: rasterize(avatar.gaussians, c)
            )
    for size in (0, -1, 10**6, 10**30, 1.5, NAN, "x", None):
        yield Case(
            "Cameras", f"width {size}", lambda _, s=size: Cameras(camera.viewmats, camera.Ks, s, 16)
        )
        yield Case(
            "orbit_cameras", f"height {size}", lambda _, s=size: orbit_cameras([0.0], height=s)
        )
    for value in (NAN, INF, 0, -1, 180, "x", None):
        yield Case("orbit_cameras", f"fov {value}", lambda _, v=value: orbit_cameras([0.0], fov=v))
    for colour in (torch.full((3,), NAN), torch.ones(4), torch.ones(3, 3)):
        yield Case(
            "render",
            f"background {colour.shape}",
            lambda _, c=colour: avatar.render(camera, background=c),
        )
        yield Case(
            "rasterize",
            f"backgrounds {colour.shape}",
            lambda _, c=colour: rasterize(avatar.gaussians, camera, backgrounds=c),
        )
    for suffix in ("", ".xyz", ".obj", ".ply.gz", ".mp3"):
        yield Case("export", f"suffix {suffix!r}", lambda p, s=suffix: avatar.export(p / f"me{s}"))


def token_calls(tokenizer: PointTokenizer) -> Iterator[Case]:
    """Points and tokens."""
    far = tokenizer.vocab_size
    for ids in (
        [far] * 4,
        [-1] * 4,
        [0, 0, 0, 0],
        [0.5] * 4,
        [[0, 0, 0, 64]],
        [64, 64, 64, 64],
        [True] * 4,
    ):
        yield Case(
            "decode_points", str(ids), lambda _, i=ids: tokenizer.decode_points(torch.tensor(i))
        )
    zero = torch.zeros(1, 3)
    for label, means, bindings in (
        ("nan", zero * NAN, [0]),
        ("inf", zero + INF, [0]),
        ("whole", zero.long(), [0]),
        ("face", zero, [10**6]),
        ("minus", zero, [-1]),
        ("share", zero, [0.5]),
        ("shape", zero[:, :2], [0]),
    ):
        yield Case(
            "encode_points",
            label,
            lambda _, m=means, b=bindings: tokenizer.encode_points(
                CanonicalPoints(m, torch.tensor(b))
            ),
        )


# judgement ----------------------------------------------------------------------------------------


def judge(case: Case, place: Path) -> tuple[str, str]:
    """The outcome of a case, and what was said."""

    def over(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, over)
    signal.alarm(LIMIT)
    try:
        result = case.act(place)
    except Hang:
        return "hang", ""
    except Exception as error:
        text = " ".join(str(error).split())
        return (
            ("trace", f"{type(error).__name__}: {text}") if explain(error) is None else said(text)
        )
    finally:
        signal.alarm(0)
    if not hasattr(result, "exit_code"):
        return ("clear" if case.may_work else "silent"), ""
    if isinstance(result.exception, Hang):
        return "hang", ""
    if result.exit_code == 0:
        return ("clear" if case.may_work else "silent"), result.output[-200:]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "trace", repr(result.exception)[:300]
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if not lines and "Usage:" in result.stderr:  # typer's own words for options
        return "clear", result.stderr.splitlines()[-1]
    return said(lines[0] if lines else result.stderr[-200:])


def said(text: str) -> tuple[str, str]:
    """Whether a refusal names the thing and the rule."""
    return ("clear" if THING.search(text) and RULE.search(text) else "unclear"), text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", default="", help="a part of the names of cases")
    parser.add_argument("--share", default="0/1", help="which share of how many, from 0 on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    root = Path(tempfile.mkdtemp(prefix="malformed_whole_"))
    build_whole(root)
    families = (call_cases, option_cases, portrait_cases, avatar_cases, pipeline_cases, data_cases)
    cases = [case for family in families for case in family(root)]
    cases = [case for case in cases if arguments.only in f"{case.door}: {case.label}"]
    first, step = map(int, arguments.share.split("/"))
    cases = cases[first::step]
    counts, rows, start = Counter(), [], time.perf_counter()
    for number, case in enumerate(cases):
        with tempfile.TemporaryDirectory() as place:
            outcome, text = judge(case, Path(place))
        counts[outcome] += 1
        rows.append({"door": case.door, "case": case.label, "outcome": outcome, "said": text[:400]})
        if outcome != "clear":
            print(f"{outcome}: {case.door}: {case.label}: {text[:300]}", flush=True)
        if number % 100 == 99:
            print(f"{number + 1} of {len(cases)}, {time.perf_counter() - start:.0f} s", flush=True)
    print(len(cases), dict(counts))
    if arguments.output:
        arguments.output.write_text(json.dumps({"counts": counts, "cases": rows}, indent=1))
    shutil.rmtree(root)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What a run is told by flags, files, recipes and the launcher, and who wins."""

import json

import pytest
from page_blocks import ROOT

from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.recipes import SIZES
from pointillist_hf.training.run_arguments import add_run_file, parse_run, read_run_file
from pointillist_hf.training.stage_settings import (
    PAPER,
    build_loop,
    describe_run,
    find_recipe,
    format_run,
)
from pointillist_hf.training.stage_times import MINUTES
from pointillist_hf.training.stages import STAGES


def read(words):
    """The stage's arguments and all settings, as examples/train.py gets them."""
    run, given = parse_run(add_run_file(words))
    return run, build_loop(run.stage, run.size, run.output, given)


WORDS = ["--stage", "generator", "--data", "d", "--output", "o"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def test_every_size_has_a_recipe_for_every_stage():
    for size in SIZES:
        assert {*find_recipe(size).settings} == {*STAGES}
        for stage in STAGES:
            assert build_loop(stage, size, "o", {}).output_dir == f"o/{stage}_run"


def test_the_papers_settings(monkeypatch):
    """Sec. 5.1: AdamW, 1e-4, 50K steps, 4 on each of 16; Adam, 12,500 steps, 4 on each of 8."""
    monkeypatch.setenv("WORLD_SIZE", "16")
    generator = build_loop("generator", "paper", "o", {})
    assert (generator.optimizer, generator.learning_rate) == ("adamw", 1e-4)
    assert (generator.max_steps, generator.batch_size) == (50_000, 64)
    assert (generator.window_step, generator.accumulation_steps) == (12_000, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")
    decoder = build_loop("decoder", "paper", "o", {})
    assert (decoder.optimizer, decoder.max_steps, decoder.batch_size) == ("adam", 12_500, 32)
    assert (decoder.perceptual, decoder.accumulation_steps) == ("lpips", 1)
    weights = describe_run("decoder", "paper", decoder)["loss_weights"]
    assert weights == {"l1": 1.0, "ssim": 0.5, "perceptual": 0.1, "offset": 0.1}
    assert build_loop("generator", "paper-depth", "o", {}).max_steps == 50_000
    assert build_loop("generator", "tiny", "o", {}).max_steps == 3000


@pytest.mark.parametrize(("world", "parts"), [(1, 16), (2, 8), (8, 2), (16, 1), (64, 1), (3, 1)])
def test_a_step_is_the_same_on_fewer_devices(world, parts, monkeypatch):
    """Four rows at once, the rest one after the other; what cannot be shared out is left alone."""
    monkeypatch.setenv("WORLD_SIZE", str(world))
    assert build_loop("generator", "paper", "o", {}).accumulation_steps == parts
    assert build_loop("generator", "paper", "o", {"accumulation_steps": 4}).accumulation_steps == 4
    assert build_loop("generator", "tiny", "o", {}).accumulation_steps == 1


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "# a run\nstage: generator\ndata: d\noutput: o\nsize: paper\nmax_steps: 7\n"
        "learning_rate: 2.0e-4\ngradient_checkpointing: false\ntracker: none\nlpips_weights:\n"
    )
    run, loop = read(["--config", str(file)])
    assert (run.stage, run.data, run.output, run.size) == ("generator", "d", "o", "paper")
    assert (loop.max_steps, loop.learning_rate, loop.batch_size) == (7, 2e-4, 64)
    assert not loop.gradient_checkpointing
    assert build_loop("generator", "paper", "o", {}).gradient_checkpointing
    run, loop = read(["--config", str(file), "--max_steps", "9", "--size", "tiny"])
    assert (run.size, loop.max_steps, loop.batch_size) == ("tiny", 9, 16)
    same = tmp_path / "run.json"
    same.write_text(json.dumps({"stage": "generator", "data": "d", "output": "o", "max_steps": 7}))
    assert read(["--config", str(same)])[1].max_steps == 7


def test_what_nobody_says_is_the_recipes_and_not_the_commands(monkeypatch):
    """A recipe with an average of weights keeps it."""
    own = {**PAPER.settings["generator"], "ema_decay": 0.999, "seed": 5, "mixed_precision": "bf16"}
    monkeypatch.setitem(PAPER.settings, "generator", own)
    _, loop = read([*WORDS, "--size", "paper"])
    assert (loop.ema_decay, loop.seed, loop.precision) == (0.999, 5, "bf16")
    _, loop = read([*WORDS, "--size", "paper", "--ema_decay", "0.5"])
    assert loop.ema_decay == 0.5


def test_the_launchers_precision_is_taken(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    _, loop = read(WORDS)
    assert loop.mixed_precision is None
    assert loop.precision == "bf16"
    assert describe_run("generator", "tiny", loop)["settings"]["mixed_precision"] == "bf16"
    _, loop = read([*WORDS, "--mixed_precision", "no"])
    assert loop.precision == "no"


def test_a_run_says_what_it_is():
    loop = build_loop("decoder", "paper", "o", {"max_steps": 3, "perceptual": "none"})
    text = format_run(describe_run("decoder", "paper", loop, people=394))
    assert text.startswith("Recipe paper: the paper's")
    for line in ("  people: 394", "  changed: max_steps, perceptual", "    learning_rate: 0.0001"):
        assert line in text.splitlines()
    assert "output_dir" not in text


def test_a_run_says_how_long_it_will_take():
    def minutes(stage, size, **given):
        described = describe_run(stage, size, build_loop(stage, size, "o", given))
        return described["estimated_minutes_on_two_cpu_cores"]

    whole = MINUTES["generator", "tiny-depth"]
    assert minutes("generator", "tiny-depth") == whole
    quarter = minutes("generator", "tiny-depth", max_steps=1500, batch_size=8)
    assert quarter == pytest.approx(whole / 4, abs=0.051)
    assert minutes("regressor", "tiny-depth") == minutes("regressor", "tiny") == 30
    assert minutes("generator", "tiny") is minutes("decoder", "paper") is None
    loop = build_loop("regressor", "tiny", "o", {})
    text = format_run(describe_run("regressor", "tiny", loop))
    assert "  estimated_minutes_on_two_cpu_cores: 30" in text
    assert {stage for stage, _ in MINUTES} <= {*STAGES}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_stepss: 3", "'max_stepss'; they are stage, data, output"),
        ("output_dir: x", "has 'output_dir'"),
        ("max_steps: [1, 2]", "`max_steps` must be one value"),
        ("just words", "must hold names and values"),
        ("a: b: c", "must be YAML or JSON"),
        ("!!python/object/apply:os.system ['true']", "must be YAML or JSON"),
    ],
)
def test_files_that_are_no_settings(text, problem, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_run_file(path)


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="`config` must be a file"):
        read_run_file(tmp_path / "nothing.yaml")
    with pytest.raises(ValueError, match="`stage` must be one of regressor, generator"):
        build_loop("everything", "tiny", "o", {})
    with pytest.raises(ValueError, match="`speed` is no setting of a run"):
        build_loop("decoder", "tiny", "o", {"speed": 3})
    with pytest.raises(ValueError, match="`perceptual` must be one of 'none', 'features', 'lpips'"):
        LoopConfig("o", perceptual="eyes")
    with pytest.raises(ValueError, match=r"arguments are not used by .*--max_stepss"):
        read([*WORDS, "--max_stepss", "3"])


def test_the_example_is_this_command():
    assert "parse_run" in (ROOT / "examples" / "train.py").read_text()

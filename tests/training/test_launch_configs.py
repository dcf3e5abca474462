# SPDX-License-Identifier: Apache-2.0
"""The files for `accelerate launch`: accelerate reads them, and a run by them is the same run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.sharding import deepspeed_settings
from pointillist_hf.training.stages import run_stage

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "accelerate"
TRAIN = ROOT / "examples" / "train.py"
SHARDED = Path(__file__).with_name("sharded_run.py")
DATA = SyntheticDatasetConfig(
    num_train=2, num_test=1, num_bins=64, num_skin_points=60, hair_budget=30, num_portraits=1,
    num_views=3, image_size=64,
)  # fmt: skip
PLACES = {  # kind, machines, processes, precision
    "one_gpu": ("NO", 1, 1, "bf16"),
    "eight_gpus": ("MULTI_GPU", 1, 8, "bf16"),
    "eight_gpus_fsdp2": ("FSDP", 1, 8, "bf16"),
    "eight_gpus_zero2": ("FSDP", 1, 8, "bf16"),
    "eight_gpus_deepspeed": ("DEEPSPEED", 1, 8, "bf16"),
    "several_machines": ("FSDP", 2, 16, "bf16"),
    "two_cpu_processes": ("MULTI_GPU", 1, 2, "no"),
}


def test_every_file_is_read_by_accelerate():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*PLACES}
    for name, (kind, machines, processes, precision) in PLACES.items():
        config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
        assert isinstance(config, ClusterConfig)
        assert config.distributed_type == DistributedType(kind), name
        assert (config.num_machines, config.num_processes) == (machines, processes), name
        assert config.mixed_precision == precision, name


@pytest.mark.parametrize("name", ["eight_gpus_fsdp2", "eight_gpus_zero2", "several_machines"])
def test_weights_are_shared_out_layer_by_layer(name, monkeypatch):
    settings = load_config_from_file(str(CONFIGS / f"{name}.yaml")).fsdp_config
    for key, value in settings.items():
        # As the launcher hands them over.
        kept = value if key.endswith(("policy", "type")) else str(value).lower()
        monkeypatch.setenv(key.upper(), kept)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is (name == "eight_gpus_fsdp2")
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert not plugin.activation_checkpointing


def test_deepspeed_clips_and_computes_as_the_run_says():
    config = LoopConfig("run", batch_size=64, max_grad_norm=0.5, mixed_precision="bf16")
    settings = deepspeed_settings(config, zero_stage=2, num_processes=8)
    assert settings["train_micro_batch_size_per_gpu"] == 8
    assert settings["gradient_clipping"] == 0.5
    assert settings["torch_autocast"]["enabled"]
    whole = deepspeed_settings(replace(config, mixed_precision="no"), 2, 8)
    assert not whole["torch_autocast"]["enabled"]
    # Its own half precision would round the weights.
    assert not settings["bf16"]["enabled"]


def test_what_deepspeed_cannot_do_is_refused():
    with pytest.raises(ValueError, match="`zero_stage` must be at most 2, got 3"):
        deepspeed_settings(LoopConfig("run", mixed_precision="no"), 3, 1)
    with pytest.raises(ValueError, match="`mixed_precision` must be 'no' or 'bf16'"):
        deepspeed_settings(LoopConfig("run", mixed_precision="fp16"), 2, 1)


# runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data set, and components with an image encoder."""
    folder = tmp_path_factory.mktemp("launched")
    build_synthetic_dataset(folder / "data", DATA, show_progress=False)
    loop = LoopConfig(
        output_dir=str(folder / "base" / "regressor_run"), max_steps=1, batch_size=2,
        num_workers=0, show_progress=False,
    )  # fmt: skip
    run_stage("regressor", folder / "data", folder / "base", "nano", loop)
    return folder


def launch(config, *words, env, script=()):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [*command, str(CONFIGS / f"{config}.yaml"), *words],
        env=environment, capture_output=True, text=True, encoding="utf-8", timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def run_words(folders, name, stage, **options):
    if not (folders / name).exists():
        shutil.copytree(folders / "base", folders / name)
    options = {
        "max_steps": 4, "batch_size": 4, "num_workers": 0, "save_steps": 2, "eval_steps": 2,
        **options,
    }  # fmt: skip
    words = ["--stage", stage, "--size", "nano", "--data", folders / "data"]
    words += ["--output", folders / name]
    return [str(word) for word in words] + [f"--{k}={v}" for k, v in options.items()]


def rows(folders, name, stage):
    text = (folders / name / f"{stage}_run" / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def same_rows(first, second, rel):
    assert len(first) == len(second) == 4
    for one, two in zip(first, second, strict=True):
        assert one == pytest.approx(two, rel=rel)


ALONE = ("--num_processes", "1", "--mixed_precision", "no")
SHARED = ("--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0")


@pytest.mark.slow
def test_runs_that_share_out_weights_are_those_of_one_process(folders):
    on_cpu = {"ACCELERATE_USE_CPU": "true"}
    pretended = {"ACCELERATE_TORCH_DEVICE": "cpu"}
    for stage in ("generator", "decoder"):
        alone = run_words(folders, "alone", stage)
        launch("one_gpu", *ALONE, str(TRAIN), *alone, env=on_cpu)
        shared = run_words(folders, "shared", stage)
        launch("eight_gpus_fsdp2", *SHARED, str(SHARDED), str(TRAIN), *shared, env=pretended)
        checkpoint = folders / "shared" / f"{stage}_run" / "checkpoints" / "step-0000004"
        assert [*checkpoint.glob("pytorch_model_fsdp_0/*.distcp")], "nothing was shared out"
        same_rows(rows(folders, "alone", stage), rows(folders, "shared", stage), rel=1e-4)

    # An interrupted run goes on from what every process has saved of it.
    whole = rows(folders, "shared", "generator")
    shutil.rmtree(folders / "shared" / "generator_run" / "checkpoints" / "step-0000004")
    again = run_words(folders, "shared", "generator")
    launch("eight_gpus_fsdp2", *SHARED, str(SHARDED), str(TRAIN), *again, env=pretended)
    same_rows(rows(folders, "shared", "generator"), whole, rel=1e-6)


@pytest.mark.slow
def test_two_processes_on_cpus_are_one_run(folders):
    on_cpu = {"ACCELERATE_USE_CPU": "true"}
    for name, config in (("single", "one_gpu"), ("double", "two_cpu_processes")):
        words = run_words(folders, name, "generator", eval_steps=0)
        few = ALONE if name == "single" else ("--main_process_port", "0")
        launch(config, *few, str(TRAIN), *words, env=on_cpu)
    single, double = (rows(folders, name, "generator") for name in ("single", "double"))
    same_rows(single, double, rel=1e-4)


@pytest.mark.slow
def test_weights_that_are_shared_out_compute_in_half_precision_like_others(folders):
    half = ("--num_processes", "2", "--mixed_precision", "bf16", "--main_process_port", "0")
    on_cpu, pretended = {"ACCELERATE_USE_CPU": "true"}, {"ACCELERATE_TORCH_DEVICE": "cpu"}
    words = {
        name: run_words(folders, name, "generator", eval_steps=0)
        for name in ("half_shared", "half", "digits")
    }
    script = (str(SHARDED), str(TRAIN))
    launch("eight_gpus_fsdp2", *half, *script, *words["half_shared"], env=pretended)
    launch("two_cpu_processes", *half, str(TRAIN), *words["half"], env=on_cpu)
    launch("one_gpu", *ALONE, str(TRAIN), *words["digits"], env=on_cpu)
    shared, own, full = (rows(folders, name, "generator") for name in words)
    same_rows(shared, own, rel=1e-4)
    # Embeddings or sums of losses that were rounded would be off by a thousand times as much.
    assert shared[0] == pytest.approx(own[0], rel=1e-5)
    assert full[0] != pytest.approx(own[0], rel=1e-4)
    assert full[0]["loss"] == pytest.approx(own[0]["loss"], rel=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
def test_runs_of_deepspeed_are_those_of_one_process(folders):
    on_cpu = {"ACCELERATE_USE_CPU": "true"}
    pretended = {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
    options = {"accumulation_steps": 2, "max_grad_norm": 0.5, "ema_decay": 0.5}
    for stage in ("generator", "decoder"):
        alone = run_words(folders, "one", stage, **options)
        launch("one_gpu", *ALONE, str(TRAIN), *alone, env=on_cpu)
        shared = run_words(folders, "zero", stage, **options)
        zero = ("eight_gpus_deepspeed", *SHARED, str(SHARDED), str(TRAIN), *shared)
        launch(*zero, env=pretended)
        checkpoints = folders / "zero" / f"{stage}_run" / "checkpoints"
        assert [*checkpoints.glob("step-0000004/pytorch_model/*zero_pp_rank_1*")], "no ZeRO"
        whole = rows(folders, "zero", stage)
        same_rows(rows(folders, "one", stage), whole, rel=1e-4)
        # An interrupted run goes on.
        shutil.rmtree(checkpoints / "step-0000004")
        launch(*zero, env=pretended)
        same_rows(rows(folders, "zero", stage), whole, rel=1e-6)

# SPDX-License-Identifier: Apache-2.0
"""One folder has one writer, and names that no library could write down are refused first."""

import os

import pytest

from pointillist_hf.data.captures.synthetic import SyntheticCaptureConfig, write_synthetic_captures
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.runner import fit_capture
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.data.tokens.tokenize_fits import tokenize_fits
from pointillist_hf.exporters.folder_owner import own_folder
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.stages import run_stage

QUIET = {"show_progress": False}
CAPTURE = SyntheticCaptureConfig("low", image_size=16, num_timesteps=1, num_cameras=2)
PEOPLE = SyntheticDatasetConfig(num_train=1, num_test=0)


def loop_config(folder):
    return LoopConfig(output_dir=str(folder / "regressor_run"), max_steps=1, show_progress=False)


WRITERS = {
    "captures": lambda w, out: write_synthetic_captures(out, 1, CAPTURE, **QUIET),
    "people": lambda w, out: build_synthetic_dataset(out, PEOPLE, **QUIET),
    "fit": lambda w, out: fit_capture(
        w / "captures" / "anna", out, FitConfig.preset("fast", num_steps=1), **QUIET
    ),
    "tokens": lambda w, out: tokenize_fits([w / "fits"], out, **QUIET),
    "training": lambda w, out: run_stage(
        "regressor", w / "data", out.parent, "nano", loop_config(out.parent)
    ),
}
every_writer = pytest.mark.parametrize("writer", WRITERS)


@every_writer
def test_a_second_writer_is_told_who_the_first_is(whole, tmp_path, writer):
    folder = tmp_path / ("regressor_run" if writer == "training" else "out")
    with (
        own_folder(folder),
        pytest.raises(BlockingIOError, match=f"is being written by process {os.getpid()} on"),
    ):
        WRITERS[writer](whole, folder)
    assert not list(folder.iterdir())


@every_writer
def test_names_in_another_encoding_are_refused_before_the_work(whole, tmp_path, writer):
    name = os.fsdecode(b"caf\xe9")
    with pytest.raises(ValueError, match=r"must be a path in UTF-8, got b'.*caf\\xe9"):
        WRITERS[writer](whole, tmp_path / name / "out")
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: Apache-2.0
"""diffusers and transformers know the package from its import on, whoever is imported first."""

import subprocess
import sys

import pytest

USE = """
folder = sys.argv[1]
config = AutoConfig.from_pretrained(f"{folder}/gaussian_decoder")
assert type(config).__name__ == "GaussianDecoderConfig"
assert "pointillist_hf.pipeline_avatar" not in sys.modules  # the libraries are, our pipeline not
assert type(AutoModel.from_pretrained(f"{folder}/conditioner")).__name__ == "AvatarConditioner"
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/tokenizer")
assert type(tokenizer).__name__ == "PointTokenizer"
pipe = DiffusionPipeline.from_pretrained(folder, device_map="cpu")
assert type(pipe) is pointillist_hf.AvatarPipeline
"""
FIRST = """
import sys
import pointillist_hf
assert not {"torch", "diffusers", "transformers"} & {*sys.modules}
from transformers import AutoConfig, AutoModel, AutoTokenizer
from diffusers import DiffusionPipeline
assert "pointillist_hf.registration" not in sys.modules
"""
LAST = """
import sys
from diffusers import DiffusionPipeline
from transformers import AutoConfig, AutoModel, AutoTokenizer
import pointillist_hf
assert "pointillist_hf.registration" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("imports", [FIRST, LAST], ids=["imported first", "imported last"])
def test_auto_classes_and_pipelines_of_a_fresh_process(tiny_pipeline, tmp_path, imports):
    tiny_pipeline.save_pretrained(tmp_path)
    command = [sys.executable, "-c", imports + USE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]

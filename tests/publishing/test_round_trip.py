# SPDX-License-Identifier: Apache-2.0
"""Pushed by one process, pulled by another whose cache is empty: the same numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

from pointillist_hf import AvatarPipeline, PortraitTracker
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset

ROOT = Path(__file__).parents[2]
PHOTOGRAPH = ROOT / "examples" / "images" / "astronaut.jpg"
TRACKER = ROOT / "model_cards" / "pointillist-tiny" / "portrait_tracker"

DIGESTS = """
import hashlib, json, sys, torch
torch.set_num_threads(1)
FIELDS = ("means", "quats", "scales", "opacities", "colors")

def digest(tensors):
    values = hashlib.sha256()
    for tensor in tensors:
        values.update(tensor.detach().contiguous().numpy().tobytes())
    return values.hexdigest()

def of_avatar(avatar):
    splats = [getattr(avatar.gaussians, name) for name in FIELDS]
    return digest([*splats, avatar.bindings, avatar.betas, avatar.rig.v_template])

def of_pipe(pipe):
    return of_avatar(pipe(PHOTOGRAPH, seed=1).avatar)

def of_model(model):
    return digest(value for _, value in sorted(model.state_dict().items()))

def of_rows(rows):
    numbers = [(row["identity"], row["input_ids"], row["betas"]) for row in rows]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
"""
PUSH = """
from datasets import load_dataset
from pointillist_hf import AvatarPipeline
from pointillist_hf.data.tokens.publication import push_token_dataset

pipe = AvatarPipeline.from_pretrained(PIPELINE)
avatar = pipe(PHOTOGRAPH, seed=1).avatar
said = dict.fromkeys(PARTS, ("trained for a test", "apache-2.0"))
pipe.push_to_hub("me/tiny", licences=said)
pipe.push_to_hub("me/variant", licences=said, variant="bf16")
avatar.push_to_hub("me/avatar", licence="cc-by-4.0", rights="In the public domain.")
push_token_dataset(PEOPLE, "me/people")
found = {
    "pipe": of_avatar(avatar),
    "generator": of_model(pipe.point_generator),
    "rows": of_rows(load_dataset(PEOPLE, split="train")),
}
print(json.dumps(found))
"""
PULL = """
import pointillist_hf
from diffusers import DiffusionPipeline
from transformers import AutoModelForCausalLM, AutoTokenizer
from datasets import load_dataset
from pointillist_hf import Avatar, AvatarPipeline

pipe = AvatarPipeline.from_pretrained("me/tiny")
again = DiffusionPipeline.from_pretrained("me/tiny", dtype=torch.float32)
older = AvatarPipeline.from_pretrained("me/tiny", torch_dtype=torch.float32, device_map="cpu")
variant = AvatarPipeline.from_pretrained("me/variant", variant="bf16", revision="main")
generator = AutoModelForCausalLM.from_pretrained("me/tiny", subfolder="point_generator")
tokenizer = AutoTokenizer.from_pretrained("me/tiny", subfolder="tokenizer")
rows = load_dataset("me/people", split="train")
streamed = load_dataset("me/people", split="train", streaming=True)
found = {
    "pipe": of_pipe(pipe),
    "diffusers": of_pipe(again),
    "older": of_pipe(older),
    "variant": of_pipe(variant),
    "from_pipe": of_pipe(AvatarPipeline.from_pipe(again)),
    "generator": of_model(generator),
    "avatar": of_avatar(Avatar.from_pretrained("me/avatar")),
    "rows": of_rows(rows),
    "streamed": of_rows(streamed),
    "kinds": [type(x).__name__ for x in (again, tokenizer, again.portrait_tracker)],
    "licences": again.config.licences["conditioner"]["licence"],
    "defaults": pipe.point_generator.generation_config.to_diff_dict(),
}
print(json.dumps(found))
"""
# Weights of this size are wholly random: in bfloat16 they are other weights.
PARTS = ("rig_regressor", "conditioner", "point_generator", "gaussian_decoder")


def run(code, hub, home, **variables):
    """What a fresh process prints last, as JSON."""
    names = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    command = [sys.executable, "-c", names + f"PHOTOGRAPH = {str(PHOTOGRAPH)!r}\n" + DIGESTS + code]
    environment = {**os.environ, **hub.environment(home)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folders(tiny_pipeline, tmp_path_factory):
    """A pipeline with the tracker, and a data set in two shards."""
    place = tmp_path_factory.mktemp("published")
    tracker = PortraitTracker.from_pretrained(TRACKER)
    pipe = AvatarPipeline(**{**tiny_pipeline.components, "portrait_tracker": tracker}, max_points=6)
    pipe.save_pretrained(place / "pipeline")
    config = SyntheticDatasetConfig(
        num_train=2,
        num_test=0,
        num_skin_points=20,
        hair_budget=20,
        num_portraits=1,
        num_views=1,
        image_size=16,
        num_rig_points=8,
        identities_per_shard=1,
    )
    build_synthetic_dataset(place / "people", config, show_progress=False)
    return place


@pytest.mark.slow
def test_what_is_pulled_is_what_was_pushed(folders, tmp_path):
    with HubServer() as hub:
        pipeline, people = str(folders / "pipeline"), str(folders / "people")
        pushed = run(PUSH, hub, tmp_path / "a", PIPELINE=pipeline, PEOPLE=people, PARTS=PARTS)
        pulled = run(PULL, hub, tmp_path / "b")
        for name in ("pipe", "diffusers", "older", "variant", "from_pipe", "avatar"):
            assert pulled[name] == pushed["pipe"], name
        for name in ("rows", "streamed"):
            assert pulled[name] == pushed["rows"]
        assert pulled["generator"] == pushed["generator"]
        assert pulled["kinds"] == ["AvatarPipeline", "PointTokenizer", "PortraitTracker"]
        assert pulled["licences"] == "apache-2.0"
        assert pulled["defaults"]  # of generation_config.json, which diffusers leaves behind
        for kind, repo_id in (
            ("model", "me/tiny"),
            ("model", "me/avatar"),
            ("dataset", "me/people"),
        ):
            everything = b"".join(hub.files(repo_id, kind).values())
            assert str(folders).encode() not in everything
            assert f'"{repo_id}"' in hub.files(repo_id, kind)["README.md"].decode()
    # The server is gone; the cache is not.
    offline = HubServer()
    environment = offline.environment(tmp_path / "b")
    offline.server.server_close()
    code = f"PHOTOGRAPH = {str(PHOTOGRAPH)!r}\n{DIGESTS}\n" + OFFLINE
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == [pushed["pipe"]] * 2


OFFLINE = """
from pointillist_hf import Avatar, AvatarPipeline
pipe = AvatarPipeline.from_pretrained("me/tiny")
avatar = Avatar.from_pretrained("me/avatar")
try:
    AvatarPipeline.from_pretrained("me/never")
except FileNotFoundError as error:
    assert "not in the cache of the Hub" in str(error), error
try:
    Avatar.from_pretrained("me/never")
except FileNotFoundError as error:
    assert "not in the cache of the Hub" in str(error), error
print(json.dumps([of_pipe(pipe), of_avatar(avatar)]))
"""

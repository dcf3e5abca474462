# SPDX-License-Identifier: Apache-2.0
"""Twelve cases of the guard: refused with the reason, or sent, and then listed byte for byte.

What is listed is what a server on the loopback address has received, file by file.
"""

import hashlib
import json
import shutil

import pytest
import torch
from fake_flame import write_flame

from pointillist_hf import FlameHeadRig, PointTokenizer
from pointillist_hf.exporters.tensor_file import read_tensors, write_tensors
from pointillist_hf.publishing.guard import Terms
from pointillist_hf.publishing.manifest import describe_parts
from pointillist_hf.publishing.publication import Request, publish_folder

# The client's own, of the library that it speaks with.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TRAINED = ("rig_regressor", "conditioner", "point_generator", "gaussian_decoder")
SAID = dict.fromkeys(TRAINED, ("trained on synthetic people", "apache-2.0"))
RIGHTS = "A written agreement of the owner allows it."
RIG = "rig/diffusion_pytorch_model.safetensors"
OWN = {"README.md", "licences.json"}


@pytest.fixture(scope="module")
def saved(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flame_rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path)
    return FlameHeadRig.from_flame(path)


@pytest.fixture
def folder(saved, tmp_path):
    """A pipeline whose parts are said to be free."""
    target = tmp_path / "pipeline"
    shutil.copytree(saved, target)
    index = json.loads((target / "model_index.json").read_text("utf-8"))
    index["licences"] = describe_parts(saved, SAID)
    (target / "model_index.json").write_text(json.dumps(index), "utf-8")
    return target


def add_tensor(path, name, tensor):
    write_tensors(read_tensors(path) | {name: tensor}, path, metadata={"format": "pt"})


def leave(folder, _):
    """As it is."""


def put_flame_by_path(folder, rig):
    shutil.rmtree(folder / "rig")
    rig.save_pretrained(folder / "rig")


def put_open_flame(folder, rig):
    put_flame_by_path(folder, rig)
    path = folder / "rig" / "config.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"version": "2023"', '"version": "2023_open"'), "utf-8")


def embed_flame(folder, _):
    add_tensor(folder / RIG, "v_template", torch.zeros(5023, 3))


def bind_to_flame(folder, _):
    PointTokenizer(num_bins=64, num_faces=10144).save_pretrained(folder / "tokenizer")


def put_michelangelo(folder, _):
    path = folder / "conditioner" / "model.safetensors"
    add_tensor(path, "point_encoder.latents.weight", torch.zeros(257, 768))


def forget_licences(folder, _):
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    del index["licences"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")


def train_on(folder, _):
    path = folder / "point_generator" / "model.safetensors"
    name = min(read_tensors(path))
    add_tensor(path, name, read_tensors(path)[name] + 1)


NERSEMBLE = {"point_generator": ("trained on NeRSemble", "cc-by-nc-4.0")}
STRICT = {"point_generator": ("trained on scans of ours", "cc-by-nc-4.0")}
FORCED = {"licence": "cc-by-nc-4.0", "rights": RIGHTS}
# What is spoilt, what the publisher says, and the reason of the refusal; None: it is sent.
CASES = {
    "free": (leave, {}, None),
    "FLAME by path": (put_flame_by_path, {}, "rig refers to a FLAME model"),
    "FLAME embedded": (embed_flame, {}, "rig holds arrays on FLAME's mesh"),
    "bound to FLAME": (bind_to_flame, {}, "tokenizer is bound to FLAME's mesh"),
    "FLAME Open": (put_open_flame, {"licence": "cc-by-4.0"}, None),
    "Michelangelo inside": (put_michelangelo, {"licences": SAID}, "shape of Michelangelo"),
    "captures": (leave, {"licences": NERSEMBLE}, "point_generator comes from NeRSemble"),
    "no licence": (forget_licences, {}, "weights whose source and licence are not known"),
    "trained on": (train_on, {}, "point_generator has weights whose source and licence"),
    "private": (
        leave,
        {"licences": NERSEMBLE, "private": True},
        "A private repository changes nothing",
    ),
    "another licence": (
        leave,
        {"licences": STRICT, "licence": "mit"},
        "stands under cc-by-nc-4.0, and not under mit",
    ),
    "forced by statement": (put_flame_by_path, FORCED, None),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(hub, folder, flame_rig, case):
    spoil, said, reason = CASES[case]
    spoil(folder, flame_rig)
    said = dict(said)
    terms = Terms(said.pop("licence", None), said.pop("rights", None))
    request = Request("me/case", terms, **said)
    if reason is not None:
        with pytest.raises(ValueError, match=reason):
            publish_folder(folder, request)
        assert not hub.requests  # nothing was sent, not even a question
        return
    publication = publish_folder(folder, request)
    received = hub.files("me/case")
    listed = {file.path: (file.size, file.sha256) for file in publication.files}
    assert listed == {
        path: (len(content), hashlib.sha256(content).hexdigest())
        for path, content in received.items()
    }
    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {*received} == expected | OWN
    for path in {*received} - OWN - {"model_index.json"}:
        if not path.endswith(".json"):
            assert received[path] == (folder / path).read_bytes(), path
    manifest = json.loads(received["licences.json"])
    assert manifest["files"] == {p: listed[p][1] for p in sorted({*received} - OWN)}
    everything = b"".join(received.values())
    assert str(folder.parent).encode() not in everything
    assert b"/flame2023.pkl" not in everything
    assert manifest["rights"] == terms.rights
    if terms.rights:
        assert terms.rights in received["README.md"].decode()


def test_there_are_twelve():
    assert len(CASES) == 12

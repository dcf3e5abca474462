# SPDX-License-Identifier: Apache-2.0
"""What may be published, and what is sent then: to the byte."""

import dataclasses
import hashlib
import json
import shutil

import pytest
import torch
from fake_flame import write_flame

from pointillist_hf import AvatarPipeline, FlameHeadRig, PointTokenizer
from pointillist_hf.avatar import Avatar
from pointillist_hf.data.tokens.publication import push_token_dataset
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.exporters.tensor_file import read_tensors, write_tensors
from pointillist_hf.publishing.guard import Terms, settle_licence
from pointillist_hf.publishing.manifest import PartLicence, describe_parts
from pointillist_hf.publishing.publication import Request, publish_folder, stage_folder

TRAINED = ("rig_regressor", "conditioner", "point_generator", "gaussian_decoder")
SAID = dict.fromkeys(TRAINED, ("trained on synthetic people", "apache-2.0"))
RIGHTS = "A written agreement of the owner allows it."
DRY = {"dry_run": True}


@pytest.fixture(scope="module")
def saved(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def pipeline_dir(saved, tmp_path):
    """A pipeline whose parts are said to be free; tests spoil it."""
    shutil.copytree(saved, tmp_path / "pipeline")
    write_index(tmp_path / "pipeline", licences=describe_parts(saved, SAID))
    return tmp_path / "pipeline"


@pytest.fixture(scope="module")
def flame_rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path)
    return FlameHeadRig.from_flame(path)


def write_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def publish(folder, **options):
    terms = Terms(options.pop("licence", None), options.pop("rights", None))
    return publish_folder(folder, Request("me/mine", terms, **{**DRY, **options}))


def test_what_is_free_is_sent_and_listed(pipeline_dir):
    publication = publish(pipeline_dir)
    assert (publication.url, publication.licence) == (None, "apache-2.0")
    sent = {file.path: file for file in publication.files}
    assert {"README.md", "licences.json", "model_index.json", "rig/config.json"} <= {*sent}
    for path in ("rig/diffusion_pytorch_model.safetensors", "point_generator/model.safetensors"):
        content = (pipeline_dir / path).read_bytes()
        assert sent[path].size == len(content)
        assert sent[path].sha256 == hashlib.sha256(content).hexdigest()


def test_only_what_belongs_to_it_is_sent(pipeline_dir):
    before = {file.path for file in publish(pipeline_dir).files}
    for name in ("photograph.jpg", "notes.txt", "rig/private.pkl", ".lock", "conditioner/.x.json"):
        (pipeline_dir / name).write_bytes(b"{}")
    assert {file.path for file in publish(pipeline_dir).files} == before


def test_weights_without_a_licence_are_refused(pipeline_dir):
    write_index(pipeline_dir, licences=None)
    with pytest.raises(ValueError, match=r"conditioner has weights whose source and licence"):
        publish(pipeline_dir)
    assert publish(pipeline_dir, licences=SAID).licence == "apache-2.0"


def test_weights_that_were_changed_lose_their_licence(pipeline_dir):
    path = pipeline_dir / "conditioner" / "model.safetensors"
    tensors = read_tensors(path)
    name = min(tensors)
    write_tensors({**tensors, name: tensors[name] + 1}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="conditioner has weights whose source and licence"):
        publish(pipeline_dir)


def test_precision_and_shards_do_not_change_weights(tiny_pipeline, saved, tmp_path):
    loaded = AvatarPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    loaded.save_pretrained(tmp_path / "half", max_shard_size="100KB")
    assert len(list((tmp_path / "half" / "conditioner").glob("*.safetensors"))) > 1
    known, found = describe_parts(saved, SAID), describe_parts(tmp_path / "half", SAID)
    assert found == known
    assert len({part["fingerprint"] for part in known.values()}) == len(TRAINED)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("image", {"model_type": "dinov3_vit"}, "conditioner holds a DINOv3"),
        ("point_cloud", {"origin": "michelangelo"}, "holds the encoder of Michelangelo"),
    ],
)
def test_encoders_of_others_are_refused_unless_they_are_elsewhere(
    part, changes, message, pipeline_dir
):
    path = pipeline_dir / "conditioner" / "config.json"
    config = json.loads(path.read_text())
    config[f"{part}_config"] |= changes
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        publish(pipeline_dir)
    path.write_text(json.dumps({**config, f"{part}_encoder_source": "somebody/encoder"}))
    assert publish(pipeline_dir).licence == "apache-2.0"


def test_flame_by_path_is_refused_and_its_path_never_sent(pipeline_dir, flame_rig, tmp_path):
    shutil.rmtree(pipeline_dir / "rig")
    flame_rig.save_pretrained(pipeline_dir / "rig")
    assert str(tmp_path.parent) in (pipeline_dir / "rig" / "config.json").read_text()
    with pytest.raises(ValueError, match="rig refers to a FLAME model"):
        publish(pipeline_dir)
    with pytest.raises(ValueError, match="`licence` must be given"):
        publish_without_licence(pipeline_dir)
    sent = publish(pipeline_dir, licence="cc-by-nc-4.0", rights=RIGHTS)
    assert sent.licence == "cc-by-nc-4.0"
    named = json.dumps({"flame_path": "flame2023.pkl"})[1:-1]
    stripped = json.loads((pipeline_dir / "rig" / "config.json").read_text())
    stripped = {k: v for k, v in stripped.items() if k != "_name_or_path"}
    stripped["flame_path"] = "flame2023.pkl"
    content = json.dumps(stripped, indent=2).encode()
    config = next(file for file in sent.files if file.path == "rig/config.json")
    assert named in content.decode()
    assert config.sha256 == hashlib.sha256(content).hexdigest()


def publish_without_licence(folder):
    known = {name: (source, "other") for name, (source, _) in SAID.items()}
    return publish(folder, rights=RIGHTS, licences=known)


def test_flame_embedded_is_refused(pipeline_dir):
    path = pipeline_dir / "rig" / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(path) | {"v_template": torch.zeros(5023, 3)}
    write_tensors(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"rig holds arrays on FLAME's mesh \(`v_template`"):
        publish(pipeline_dir)


def test_what_is_bound_to_flame_is_refused(pipeline_dir):
    PointTokenizer(num_bins=64, num_faces=10144).save_pretrained(pipeline_dir / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer is bound to FLAME's mesh"):
        publish(pipeline_dir)


def test_open_flame_is_passed_on_under_its_licence(pipeline_dir, flame_rig):
    shutil.rmtree(pipeline_dir / "rig")
    flame_rig.save_pretrained(pipeline_dir / "rig")
    path = pipeline_dir / "rig" / "config.json"
    path.write_text(path.read_text().replace('"version": "2023"', '"version": "2023_open"'))
    with pytest.raises(ValueError, match=r"the parts have apache-2.0, cc-by-4.0"):
        publish(pipeline_dir)
    assert publish(pipeline_dir, licence="cc-by-4.0").licence == "cc-by-4.0"


def test_michelangelo_inside_is_refused(pipeline_dir):
    path = pipeline_dir / "conditioner" / "model.safetensors"
    tensors = read_tensors(path)
    tensors["point_encoder.latents.weight"] = torch.zeros(257, 768)
    write_tensors(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="latents of the shape of Michelangelo"):
        publish(pipeline_dir, licences=SAID)


@pytest.mark.parametrize("source", ["fits of NeRSemble", "Michelangelo, converted", "FLAME fits"])
def test_sources_that_are_not_free_are_refused(pipeline_dir, source):
    licences = {"point_generator": (f"trained on {source}", "apache-2.0")}
    with pytest.raises(ValueError, match="point_generator comes from"):
        publish(pipeline_dir, licences=licences)


def test_a_private_repository_changes_nothing(pipeline_dir):
    licences = {"point_generator": ("trained on NeRSemble", "other")}
    with pytest.raises(ValueError, match="A private repository changes nothing"):
        publish(pipeline_dir, licences=licences, private=True)


def test_a_statement_is_published_with_it(pipeline_dir, tmp_path):
    licences = {"point_generator": ("trained on NeRSemble", "other")}
    request = Request("me/mine", Terms("cc-by-nc-4.0", RIGHTS), licences=licences)
    (tmp_path / "stage").mkdir()
    staged = stage_folder(pipeline_dir, tmp_path / "stage", request)
    assert f"The publisher states: {RIGHTS}" in (tmp_path / "stage" / "README.md").read_text()
    manifest = json.loads((tmp_path / "stage" / "licences.json").read_text())
    assert (manifest["licence"], manifest["rights"]) == ("cc-by-nc-4.0", RIGHTS)
    assert manifest["parts"]["point_generator"]["source"] == "trained on NeRSemble"
    sent = {file.path: file.sha256 for file in staged.files}
    own = {"README.md", "licences.json"}
    assert manifest["files"] == {path: sent[path] for path in sent if path not in own}


def test_avatars_need_a_word_on_their_person(tiny_avatar, tmp_path):
    with pytest.raises(ValueError, match="may be the likeness of a real person"):
        tiny_avatar.push_to_hub("me/avatar", licence="cc-by-4.0", preview=False, **DRY)
    sent = tiny_avatar.push_to_hub(
        "me/avatar", licence="cc-by-4.0", rights="It is me.", preview=False, **DRY
    )
    assert [file.path for file in sent.files] == [
        "README.md",
        "avatar.json",
        "avatar.safetensors",
        "licences.json",
        "rig/config.json",
        "rig/diffusion_pytorch_model.safetensors",
    ]


def test_avatars_on_flame_are_refused(tiny_gaussians, tiny_points, flame_rig):
    avatar = Avatar(tiny_gaussians, tiny_points.bindings, flame_rig, torch.zeros(300))
    with pytest.raises(ValueError, match="FLAME"):
        avatar.push_to_hub("me/avatar", licence="cc-by-4.0", preview=False, **DRY)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard") / "people"
    config = SyntheticDatasetConfig(
        num_train=1,
        num_test=0,
        num_skin_points=20,
        hair_budget=20,
        num_portraits=1,
        num_views=1,
        image_size=16,
        num_rig_points=8,
    )
    build_synthetic_dataset(folder, config, show_progress=False)
    return folder


def test_synthetic_people_are_free(people):
    sent = push_token_dataset(people, "me/people", **DRY)
    assert sent.licence == "apache-2.0"
    paths = {file.path for file in sent.files}
    assert {"train-00000-of-00001.parquet", "tokenizer/tokenizer_config.json"} <= paths


def test_rows_of_captures_are_refused_whatever_the_card_says(people, tmp_path):
    from datasets import load_dataset

    shutil.copytree(people, tmp_path / "people")
    path = next((tmp_path / "people").glob("*.parquet"))
    rows = load_dataset("parquet", data_files=[str(path)], split="train")
    rows = rows.map(lambda row: {"source": "fit of a capture"})
    rows.to_parquet(path)
    with pytest.raises(ValueError, match="rows were made of recordings of people"):
        push_token_dataset(tmp_path / "people", "me/people", licence="cc-by-4.0", **DRY)
    sent = push_token_dataset(
        tmp_path / "people", "me/people", licence="cc-by-4.0", rights=RIGHTS, **DRY
    )
    assert sent.licence == "cc-by-4.0"


def test_licences_of_parts_are_kept():
    free, bound = PartLicence("a", "mit"), PartLicence("b", "cc-by-nc-4.0")
    assert settle_licence({"a": free}, [], Terms()) == "mit"
    assert settle_licence({"a": free, "b": bound}, [], Terms("cc-by-nc-4.0")) == "cc-by-nc-4.0"
    with pytest.raises(ValueError, match=r"under cc-by-nc-4.0, and not under apache-2.0"):
        settle_licence({"a": free, "b": bound}, [], Terms("apache-2.0"))
    with pytest.raises(ValueError, match=r"the parts have cc-by-nc-4.0, mit"):
        settle_licence({"a": free, "b": bound}, [], Terms())
    with pytest.raises(ValueError, match="no licence that allows it"):
        settle_licence({"a": dataclasses.replace(free, licence="other")}, [], Terms("mit"))


def test_names_of_repositories_and_parts_are_checked(pipeline_dir):
    with pytest.raises(ValueError, match="`repo_id` must be of the form user/name"):
        publish_folder(pipeline_dir, Request("mine", dry_run=True))
    with pytest.raises(ValueError, match=r"`licences` must name parts .*, got decoder"):
        publish(pipeline_dir, licences={"decoder": ("x", "mit")})


def test_folders_of_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must hold a pipeline"):
        publish(tmp_path)


def test_cards_that_name_folders_of_the_machine_are_refused(pipeline_dir):
    card = f"---\nlicense: apache-2.0\n---\nTrained in {pipeline_dir}.\n"
    (pipeline_dir / "README.md").write_text(card)
    with pytest.raises(ValueError, match=r"`README.md` must not name folders of this machine"):
        publish(pipeline_dir)

# SPDX-License-Identifier: Apache-2.0
"""Cards say what is known, in the words of the Hub, and load the repository that they lie in."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from pointillist_hf.publishing.artefacts import find_artefact
from pointillist_hf.publishing.cards import CardFacts, Result, adapt_card, build_card, join_cards
from pointillist_hf.publishing.local_paths import refuse_paths, remove_paths
from pointillist_hf.publishing.manifest import PartLicence
from pointillist_hf.publishing.publication import Request, stage_folder
from pointillist_hf.publishing.restrictions import Restriction

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "model_cards" / "pointillist-tiny"
FACTS = CardFacts(
    base_model="facebook/dinov2-small",
    datasets=("me/people",),
    results=(Result("psnr", 18.1, "me/people"),),
)


def build(folder, **options):
    words = {
        "repo_id": "me/mine",
        "licence": "cc-by-4.0",
        "parts": {"rig": PartLicence("formulas", "apache-2.0")},
        "restrictions": [],
        "rights": None,
        "facts": CardFacts(),
    }
    return build_card(find_artefact(folder), **{**words, **options})


@pytest.fixture(scope="module")
def pipeline_dir(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return folder


def test_cards_of_pipelines(pipeline_dir):
    card = ModelCard(build(pipeline_dir, facts=FACTS))
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "image-to-3d"
    assert card.data.base_model == "facebook/dinov2-small"
    assert card.data.datasets == ["me/people"]
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("psnr", 18.1)
    assert "| rig | formulas | apache-2.0 |" in card.text
    assert "| `max_points` | 6 |" in card.text
    assert "people who have agreed" in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'AvatarPipeline.from_pretrained("me/mine")' in code


def test_statements_stand_on_the_card(pipeline_dir):
    bound = [Restriction("rig", "refers to a FLAME model")]
    text = build(pipeline_dir, restrictions=bound, rights="We have a contract.")
    assert "- rig refers to a FLAME model" in text
    assert "The publisher states: We have a contract." in text


def test_cards_of_avatars(tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path)
    assert "preview.png" not in build(tmp_path)
    (tmp_path / "preview.png").write_bytes(b"")
    card = ModelCard(build(tmp_path))
    assert card.data.library_name == "pointillist_hf"
    assert 'Avatar.from_pretrained("me/mine")' in card.text
    assert "![mine](preview.png)" in card.text


def test_the_embedded_model_is_ready_to_be_published(tmp_path):
    staged = stage_folder(EMBEDDED, tmp_path, Request("me/copy"))
    assert staged.licence == "apache-2.0"
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-to-3d"
    assert 'AvatarPipeline.from_pretrained("me/copy")' in card.text
    assert "](../" not in card.text
    assert {file.path for file in staged.files} >= {
        "portrait_tracker/face_landmark.tflite",
        "portrait_tracker/LICENSE.txt",
        "portrait_tracker/NOTICE.txt",
    }


def test_own_cards_keep_their_words(pipeline_dir):
    text = (
        "---\nlicense: mit\ntags: [mine]\n---\n# Mine\n\nSee [the guide](../../docs/guide.md), "
        '[here](x.md).\n\n```python\nx = AvatarPipeline.from_pretrained("runs/pipeline")\n'
        'y = from_pretrained("other/one")\n```\n'
    )
    options = {"licence": "mit", "facts": FACTS, "rights": None}
    card = ModelCard(adapt_card(text, find_artefact(pipeline_dir), "me/mine", **options))
    assert card.data.tags == ["mine"]
    assert card.data.base_model == "facebook/dinov2-small"
    assert "See the guide, [here](x.md)." in card.text
    assert 'AvatarPipeline.from_pretrained("me/mine")' in card.text
    assert 'from_pretrained("other/one")' in card.text


def test_cards_of_data_sets_keep_their_splits(tmp_path):
    from pointillist_hf.data.tokens.synthetic import (
        SyntheticDatasetConfig,
        build_synthetic_dataset,
    )

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
    build_synthetic_dataset(tmp_path / "people", config, show_progress=False)
    (tmp_path / "stage").mkdir()
    given = {"rows": ("synthetic", "apache-2.0")}
    stage_folder(tmp_path / "people", tmp_path / "stage", Request("me/people", licences=given))
    card = DatasetCard.load(tmp_path / "stage" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.configs[0]["data_files"][0]["split"] == "train"
    assert 'load_dataset("me/people", split="train")' in card.text


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/home/somebody/flame2023.pkl", "flame2023.pkl"),
        ("C:\\Users\\Some Body\\flame.npz", "flame.npz"),
        ("C:/Users/x/flame.npz", "flame.npz"),
        ("\\\\server\\share\\flame.npz", "flame.npz"),
        ("~/models/flame.npz", "flame.npz"),
        ("file:///home/x/flame.npz", "flame.npz"),
        ("models/flame.npz", "models/flame.npz"),
        ("user/repository", "user/repository"),
        ("a / b", "a / b"),
        ("/", "/"),
    ],
)
def test_absolute_paths_lose_their_folders(tmp_path, written, sent):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"a": {"b": [written, 3, None]}, "_name_or_path": "/x/y", "c": written})
    )
    remove_paths(path)
    assert json.loads(path.read_text()) == {"a": {"b": [sent, 3, None]}, "c": sent}


def test_files_that_name_a_folder_are_refused(tmp_path):
    (tmp_path / "card.md").write_text(f"Made in {tmp_path}.")
    with pytest.raises(ValueError, match=r"`card.md` must not name folders of this machine"):
        refuse_paths([tmp_path / "card.md"], [tmp_path])
    refuse_paths([tmp_path / "card.md"], [Path("/"), tmp_path / "elsewhere"])
    shutil.rmtree(tmp_path)


TABLE = "| setting | value |\n| --- | --- |\n| `a` | 1 |"


def test_a_card_written_by_hand_keeps_splits_and_settings():
    made = (
        "---\nlicense: apache-2.0\nconfigs:\n- config_name: x\n  data_files:\n  - split: train\n"
        '    path: "train-*.parquet"\n---\n# Made\n\n' + TABLE + "\n"
    )
    written = (ROOT / "model_cards" / "pointillist-people" / "README.md").read_text("utf-8")
    card = DatasetCard(join_cards(written, made))
    assert card.data.license == "apache-2.0"
    assert card.data.task_categories == ["image-to-3d"]
    assert card.data.configs[0]["data_files"][0]["path"] == "train-*.parquet"
    assert card.text.rstrip().endswith(
        "## Settings\n\n| setting | value |\n| --- | --- |\n| `a` | 1 |"
    )
    assert join_cards(written, None) == written


def test_the_card_of_the_embedded_model_has_its_figures():
    card = ModelCard.load(EMBEDDED / "README.md")
    figures = {one.metric_name: one.metric_value for one in card.data.eval_results}
    results = json.loads((ROOT / "benchmarks/results/photographs.json").read_text("utf-8"))
    measured = results["people"]["variants"]["feed-forward"]
    assert figures["Head, PSNR in dB"] == round(measured["head_db"], 1)
    assert figures["Face, PSNR in dB"] == round(measured["face_db"], 1)
    assert card.data.datasets == ["pointillist-hf/pointillist-people"]
    assert "people who have agreed to it" in " ".join(card.text.split())

# SPDX-License-Identifier: Apache-2.0
"""Parts of a pipeline by themselves: the guard stands at each of their doors."""

import pytest
import torch
from fake_flame import write_flame

from pointillist_hf import (
    FlameHeadRig,
    PointGeneratorForCausalLM,
    PointTokenizer,
    ProceduralHeadRig,
)

# The client's own, of the library that it speaks with.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`:UserWarning"),
]
SAID = {"source": "trained on synthetic people", "licence": "apache-2.0"}
WEIGHTS = ("conditioner", "gaussian_decoder", "point_generator", "rig_regressor")


@pytest.fixture
def flame_rig(tmp_path):
    write_flame(tmp_path / "flame2023.pkl")
    return FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_need_a_source(hub, tiny_pipeline, name):
    part = getattr(tiny_pipeline, name)
    with pytest.raises(ValueError, match="part has weights whose source and licence are not known"):
        part.push_to_hub("me/part")
    with pytest.raises(ValueError, match="`licence` must be given with `source`"):
        part.push_to_hub("me/part", source="trained on synthetic people")
    with pytest.raises(ValueError, match="part comes from NeRSemble"):
        part.push_to_hub("me/part", licence="apache-2.0", source="trained on NeRSemble")
    assert not hub.repositories
    sent = part.push_to_hub("me/part", dry_run=True, **SAID)
    assert [file.path for file in sent.files if file.path.endswith(".json")][:1] == ["config.json"]


def test_parts_come_back_by_their_id(hub, tiny_pipeline, tmp_path):
    tiny_pipeline.point_generator.push_to_hub("me/generator", **SAID)
    pulled = PointGeneratorForCausalLM.from_pretrained("me/generator", cache_dir=tmp_path)
    weights = tiny_pipeline.point_generator.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in pulled.state_dict().items())
    card = hub.files("me/generator")["README.md"].decode()
    assert 'PointGeneratorForCausalLM.from_pretrained("me/generator")' in card
    assert set(hub.files("me/generator")) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "licences.json",
        "model.safetensors",
    }
    tiny_pipeline.rig.push_to_hub("me/rig")
    rig = ProceduralHeadRig.from_pretrained("me/rig", cache_dir=tmp_path)
    assert torch.equal(rig.v_template, tiny_pipeline.rig.v_template)
    tiny_pipeline.tokenizer.push_to_hub("me/tokenizer")
    tokenizer = PointTokenizer.from_pretrained("me/tokenizer", cache_dir=tmp_path)
    assert tokenizer.num_faces == tiny_pipeline.tokenizer.num_faces
    tiny_pipeline.image_processor.push_to_hub("me/processor")


@pytest.mark.parametrize("hook", ["_upload_folder", "_upload_modified_files"])
def test_saving_is_no_way_round(hub, tiny_pipeline, tmp_path, hook):
    """Both libraries end `save_pretrained(..., push_to_hub=True)` with a call of these."""
    part = tiny_pipeline.conditioner
    part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="part has weights whose source and licence"):
        getattr(part, hook)(str(tmp_path), "me/part", token=None)
    assert not hub.repositories


def test_flame_has_no_door(hub, flame_rig, tmp_path):
    flame_rig.save_config(str(tmp_path / "reference"))
    for push in (
        lambda: flame_rig.push_to_hub("me/rig"),
        lambda: flame_rig.push_to_hub("me/rig", licence="other", rights="Mine."),
        lambda: flame_rig.save_pretrained(tmp_path / "rig", push_to_hub=True, repo_id="me/rig"),
        # What `save_config(..., push_to_hub=True)` ends with.
        lambda: flame_rig._upload_folder(str(tmp_path / "reference"), "me/rig", token=None),
    ):
        with pytest.raises(ValueError, match="FLAME"):
            push()
    assert not hub.repositories


def test_vocabularies_of_flame_are_refused(hub):
    with pytest.raises(ValueError, match="is bound to FLAME's mesh"):
        PointTokenizer(num_bins=64, num_faces=10144).push_to_hub("me/tokenizer")
    assert not hub.repositories


def test_every_part_of_a_pipeline_is_guarded(tiny_pipeline):
    from pointillist_hf.guarded_push import GuardedPush

    for name, part in tiny_pipeline.components.items():
        if hasattr(part, "push_to_hub"):
            order = type(part).__mro__
            first = next(base for base in order if "push_to_hub" in vars(base))
            # One that knows more of its own weights refuses those, then asks the guard.
            assert first is GuardedPush or issubclass(first, GuardedPush), name

# SPDX-License-Identifier: Apache-2.0
"""Training that begins with the weights of a model, and layouts on the way."""

import json
import shutil

import pytest
import torch

from pointillist_hf import AvatarConditioner, PointGeneratorForCausalLM, RigRegressor
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.recipes import build_generator_config
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.starting_weights import find_wider, take_over_weights
from pointillist_hf.training.train_generator import GeneratorTraining
from pointillist_hf.training.windows import cut_window

DATA = SyntheticDatasetConfig(
    num_train=2, num_test=0, num_bins=64, num_skin_points=30, hair_budget=30,
    num_portraits=1, num_views=0, image_size=32, num_rig_points=16,
)  # fmt: skip
SIZE = "nano-anchored"
KINDS = {
    "regressor": {"rig_regressor": RigRegressor},
    "generator": {"conditioner": AvatarConditioner, "point_generator": PointGeneratorForCausalLM},
}


def run(stage, place, name, *, steps, rate=3e-3, size=SIZE, loop=None, **options):
    """Components of a stage in a folder of its own, and the log."""
    output = place / name
    config = LoopConfig(
        str(output / f"{stage}_run"), max_steps=steps, batch_size=2, learning_rate=rate,
        warmup_steps=0, schedule="constant", show_progress=False, **(loop or {}),
    )  # fmt: skip
    run_stage(stage, place / "data", output, size, config, **options)
    lines = (output / f"{stage}_run" / "log.jsonl").read_text().splitlines()
    return output, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set without views, and components that have seen it a while."""
    folder = tmp_path_factory.mktemp("start")
    build_synthetic_dataset(folder / "data", DATA, show_progress=False)
    run("regressor", folder, "first", steps=40)
    run("generator", folder, "first", steps=60)
    return folder


def log_of(place, stage):
    path = place / "first" / f"{stage}_run" / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("stage", "name"), [("regressor", "layout"), ("generator", "loss_layout")])
def test_layouts_are_learned_where_there_are_no_views(place, stage, name):
    values = [row[name] for row in log_of(place, stage)]
    assert min(values) >= 0
    assert sum(values[-5:]) < 0.7 * sum(values[:5])
    assert "views" not in log_of(place, stage)[0]


def test_nats_of_the_layout_are_part_of_the_loss(place):
    people = load_people(place / "data", "train", token_order="byzx")
    conditioner, generator = (
        kind.from_pretrained(place / "first" / name) for name, kind in KINDS["generator"].items()
    )
    person, size = people.persons[0], conditioner.config.layout_size
    ids, labels = cut_window(person.input_ids, 0, 64, people.tokenizer.layout)
    with torch.no_grad():
        losses = GeneratorTraining(conditioner, generator)(
            pixel_values=torch.zeros(1, 3, 56, 56),
            rig_points=people.rig.sample_points(person.betas[None], 64),
            input_ids=ids[None],
            labels=labels[None],
            face_anchors=people.rig.face_anchors(person.betas[None]),
            layouts=people.layout_of(person, size)[None],
            layout_shares=torch.ones(1),
        )
    parts = sum(losses[f"loss_{kind}"][0] for kind in (*"xyzb", "end", "layout"))
    assert float(losses["loss_layout"][0]) > 1
    torch.testing.assert_close(losses["loss"][0], parts)


def test_skin_in_coarse_bins_does_not_stand_off(place):
    """Half a bin of 64 is four millimetres."""
    people = load_people(place / "data", "train")
    counts = [float(people.layout_of(p, 4).sum()) for p in people.persons]
    whole = [p.num_points for p in people.persons]
    assert all(count < 0.6 * num for count, num in zip(counts, whole, strict=True))


def test_a_run_that_goes_on_knows_where_it_began(place, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(place / "first", other, ignore=shutil.ignore_patterns("*_run"))
    options = {"rate": 1e-9, "steps": 1}
    out, _ = run("regressor", place, "going on", start_from=other, **options)
    shutil.rmtree(other)
    with pytest.raises(ValueError, match=r"`start_from` was .*other' when the run"):
        run("regressor", place, "going on", start_from=place / "first", **options)
    run("regressor", place, "going on", **{**options, "steps": 2})
    assert json.loads((out / "recipe-regressor.json").read_text())["start_from"] == str(other)


def test_encoders_that_are_given_are_kept(place):
    first = AvatarConditioner.from_pretrained(place / "first" / "conditioner")
    conditioner = AvatarConditioner(first.config)
    before = {name: w.clone() for name, w in conditioner.state_dict().items()}
    take_over_weights(conditioner, place / "first" / "conditioner", own=("image_encoder",))
    for name, weights in conditioner.state_dict().items():
        expected = before if name.startswith("image_encoder") else first.state_dict()
        assert torch.equal(weights, expected[name]), name


@pytest.mark.parametrize("stage", ["regressor", "generator"])
def test_a_run_begins_where_the_other_ended(place, stage):
    second = f"second {stage}"
    if stage == "generator":
        run("regressor", place, second, steps=1, rate=1e-9, start_from=place / "first")
    _, log = run(stage, place, second, steps=2, rate=1e-9, start_from=place / "first")
    before = [row["loss"] for row in log_of(place, stage)]
    assert log[0]["loss"] < 0.9 * before[0]
    for name, kind in KINDS[stage].items():
        old, new = (
            kind.from_pretrained(place / where / name).state_dict() for where in ("first", second)
        )
        for key, value in old.items():
            torch.testing.assert_close(new[key], value, atol=1e-4, rtol=0)


def test_a_conditioner_without_layouts_gets_a_new_reader(place, tmp_path):
    old = AvatarConditioner.from_pretrained(place / "first" / "conditioner")
    config = old.config
    config.layout_size = None
    plain = AvatarConditioner(config)
    plain.load_state_dict(
        {k: v for k, v in old.state_dict().items() if not k.startswith("layout_")}
    )
    plain.save_pretrained(tmp_path / "conditioner")
    for name in ("point_generator", "tokenizer"):
        (tmp_path / name).symlink_to(place / "first" / name)
    run("regressor", place, "third", steps=1, start_from=place / "first")
    out, log = run("generator", place, "third", steps=1, rate=1e-9, start_from=tmp_path)
    found = AvatarConditioner.from_pretrained(out / "conditioner")
    assert found.layout_reader is not None
    torch.testing.assert_close(found.image_proj.weight, old.image_proj.weight)
    assert log[0]["loss_layout"] > 2 * log_of(place, "generator")[-1]["loss_layout"]


def test_what_does_not_fit_is_refused(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="`start_from` must hold a folder rig_regressor"):
        run("regressor", place, "none", steps=1, start_from=tmp_path)
    shutil.copytree(place / "first", tmp_path / "other")
    path = tmp_path / "other" / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"num_bins": 64', '"num_bins": 32'))
    with pytest.raises(ValueError, match="`start_from` holds components of another data set"):
        run("generator", place, "first bins", steps=1, start_from=tmp_path / "other")
    with pytest.raises(ValueError, match="`start_from` must be given to regressor and generator"):
        run("decoder", place, "none", steps=1, start_from=place / "first")
    with pytest.raises(ValueError, match=r"`start_from` must hold networks of the sizes .* others"):
        run("regressor", place, "large", steps=1, size="tiny", start_from=place / "first")


def test_windows_are_of_regions_that_the_rig_has(place):
    run("regressor", place, "focused", steps=1)
    _, log = run("generator", place, "focused", steps=1, loop={"focus_region": "beard"})
    assert log[0]["loss_b"] != log_of(place, "generator")[0]["loss_b"]
    for loop, expected in (
        ({"focus_region": "elbow"}, "`elbow` is no region of this rig"),
        ({"focus_region": "beard", "window_step": 64}, "`focus_region` must be left out"),
    ):
        with pytest.raises(ValueError, match=expected):
            run("generator", place, "focused", steps=2, loop=loop)


def test_faces_that_were_told_less_begin_where_they_were(place, tmp_path):
    """What is told of layouts does nothing at first, and other heights are another thing."""
    tokenizer = load_people(place / "data", "train", token_order="byzx").tokenizer
    told = PointGeneratorForCausalLM(build_generator_config(SIZE, tokenizer))
    config = build_generator_config(SIZE, tokenizer)
    config.layout_heights = None
    plain = PointGeneratorForCausalLM(config)
    plain.save_pretrained(tmp_path)
    take_over_weights(told, tmp_path, wider=find_wider(tmp_path, told.config))
    heads = torch.randn(1, config.num_faces, told.config.num_face_features)
    found = told.model.embed_faces(heads).embeddings
    torch.testing.assert_close(found, plain.model.embed_faces(heads[..., :6]).embeddings)
    told.config.layout_heights = [0.3]
    told.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`start_from` must hold a generator with"):
        run("generator", place, "heights", steps=1, start_from=start_with(place, tmp_path))


def start_with(place, generator):
    """The components with another generator."""
    folder = generator / "start"
    shutil.copytree(place / "first", folder, ignore=shutil.ignore_patterns("*_run"))
    shutil.copy(generator / "config.json", folder / "point_generator")
    return folder

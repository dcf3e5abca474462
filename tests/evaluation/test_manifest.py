# SPDX-License-Identifier: Apache-2.0
"""The protocol: what is drawn, that it stays, and that nobody changes it unseen."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pointillist_hf.data.captures.reading import read_capture
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.evaluation.benchmark_choice import (
    BenchmarkConfig,
    choose_identities,
    choose_source,
    choose_targets,
    person_of,
    view_angles,
)
from pointillist_hf.evaluation.benchmark_making import compose, make_benchmark
from pointillist_hf.evaluation.manifest import MANIFEST_FILE, item_camera, read_manifest
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.motion.vhap_params import read_params

NERSEMBLE = [f"{number:03d}" for number in range(419)]


def test_25_of_419_by_seed():
    chosen, driver = choose_identities(NERSEMBLE, BenchmarkConfig())
    assert len({*chosen}) == 25 and driver not in chosen
    assert chosen == choose_identities(NERSEMBLE[::-1], BenchmarkConfig())[0]
    assert chosen != choose_identities(NERSEMBLE, BenchmarkConfig(seed=1))[0]
    more, _ = choose_identities([*NERSEMBLE, "419"], BenchmarkConfig())
    assert len({*chosen} & {*more}) >= 24


def test_captures_of_one_person_are_one_person():
    names = [f"{person}_{take}" for person in NERSEMBLE for take in ("EMO-1_v16", "SEN-04_v16")]
    names += ["UNION10_074_EMO1234EXP234589_v16_DS2_whiteBg", "person_0000074", "2024_talk"]
    assert person_of(names[-3]) == person_of("074") == person_of("074_EMO-1_v16") == "074"
    assert person_of("person_0000074") == "person_0000074" and person_of("2024_talk") == "2024_talk"
    chosen, driver = choose_identities(names, BenchmarkConfig())
    assert len({person_of(name) for name in [*chosen, driver]}) == 26
    # Who is drawn does not depend on which of their captures somebody has.
    fewer, _ = choose_identities([*NERSEMBLE, *names[-2:]], BenchmarkConfig())
    assert [person_of(name) for name in chosen] == [person_of(name) for name in fewer]


def test_a_video_is_a_capture_with_one_camera(capture_folders, drawn, tmp_path):
    talks = []
    for folder in capture_folders:
        capture = read_capture(folder)
        camera = capture.camera_ids[int(view_angles(capture).argmin())]
        kept = [k for k in range(len(capture)) if capture.camera_ids[k] == camera]
        parts = {
            name: [getattr(capture, name)[k] for k in kept]
            for name in ("images", "masks", "camera_ids")
        }
        video = replace(
            capture,
            **parts,
            cameras=capture.cameras[kept],
            timesteps=capture.timesteps[kept],
            splits=("train",) * len(kept),
        )
        write_capture(video, tmp_path / folder.name)
        talks.append(tmp_path / folder.name)
    made = make_benchmark(talks, tmp_path / "made", drawn, show_progress=False)
    assert {item.task for item in made.items} == {"self", "cross"} and len(made.sources) == 2
    for source in made.sources:
        own = [i for i in made.of_task("self") if i.identity == source.identity]
        assert own and {i.camera for i in own} == {source.camera}
        assert source.timestep not in {i.timestep for i in own}


def test_drivers_of_small_sets():
    config = BenchmarkConfig(num_identities=2)
    assert choose_identities(["a"], config) == (["a"], None)
    chosen, driver = choose_identities(["a", "b"], config)
    assert driver in chosen


def test_sources_are_frontal_and_no_target(capture_folders, drawn):
    capture = read_capture(capture_folders[0])
    source = choose_source(capture, drawn)
    angles = view_angles(capture)
    same_time = capture.timesteps == capture.timesteps[source]
    assert angles[source] == angles[same_time].min() < 45
    targets = choose_targets(capture, drawn, purpose="self", without=source)
    assert source not in targets and (angles[targets] <= 60).all()
    assert targets == choose_targets(capture, drawn, purpose="self", without=source)
    none = choose_targets(capture, replace(drawn, max_angle=0.0), purpose="self")
    assert none == []


def test_a_turned_head_is_seen_from_the_side(capture_folders):
    capture = read_capture(capture_folders[0])
    still = replace(
        capture.rig_params, global_orient=torch.zeros(3, 3), neck_pose=torch.zeros(3, 3)
    )
    turned = replace(still, global_orient=torch.tensor([[0.0, torch.pi, 0.0]] * 3))
    angles = [view_angles(replace(capture, rig_params=p)) for p in (still, turned)]
    assert torch.allclose(angles[0] + angles[1], torch.full_like(angles[0], 180), atol=1e-2)


def test_the_folder_holds_what_the_manifest_says(benchmark_folder):
    manifest = read_manifest(benchmark_folder)
    assert len(manifest.sources) == 2 and manifest.driver not in manifest.identities
    assert {item.task for item in manifest.items} == {"self", "cross"}
    for item in manifest.items:
        assert item.capture == (item.identity if item.task == "self" else manifest.driver)
        with Image.open(benchmark_folder / "targets" / f"{item.target}.png") as picture:
            assert picture.size == (64, 64) and picture.mode == "RGB"
        params, _ = read_params(benchmark_folder / "tracks" / f"{item.capture}.npz")
        # The head is in the middle of the picture, as the camera and the track say.
        place = params.transl[item.timestep][None]
        pixels, _ = project_points(place, item_camera(item, 64))
        assert ((pixels > 16) & (pixels < 48)).all()


def test_the_same_captures_give_the_same_hash(capture_folders, benchmark_folder, drawn, tmp_path):
    again = make_benchmark(
        capture_folders[::-1], tmp_path / "b", drawn, dataset="tiny people", show_progress=False
    )
    manifest = read_manifest(benchmark_folder)
    assert again == manifest and again.sha256 == manifest.sha256
    assert replace(manifest, seed=3).sha256 != manifest.sha256


def test_changed_manifests_are_refused(benchmark_folder, tmp_path):
    content = json.loads((benchmark_folder / MANIFEST_FILE).read_text())

    def refuse(match, **changes):
        (tmp_path / MANIFEST_FILE).write_text(json.dumps(content | changes))
        with pytest.raises(ValueError, match=match):
            read_manifest(tmp_path)

    refuse("was changed after", seed=9)
    refuse("must be of schema", schema="other/2")
    refuse("is damaged", items=[{"item_id": "a"}])
    outside = {**content["sources"][0], "identity": "../a"}
    refuse("was changed|no file may have", sources=[outside])
    with pytest.raises(FileNotFoundError, match="--captures"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`num_views` must be at least 1"):
        BenchmarkConfig(num_views=0)


def test_people_on_the_background_stay_as_they_are():
    mask = torch.tensor([0.0, 0.5, 1.0])[None, :, None]
    image = torch.tensor([1.0, 0.7, 0.2])[None, :, None].expand(1, 3, 3)
    assert torch.equal(compose(image, mask, (1.0, 1.0, 1.0)), image)
    black = compose(image, mask, (0.0, 0.0, 0.0))
    assert torch.allclose(black[0, :, 0], torch.tensor([0.0, 0.35, 0.2]))

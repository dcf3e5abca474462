# SPDX-License-Identifier: Apache-2.0
"""What visitors can do, with the worker's jobs done in this process."""

import zipfile

import pytest
import torch
from PIL import Image

from pointillist_hf import Avatar
from pointillist_hf.app.frames import show_cloud, show_nothing, show_page
from pointillist_hf.app.jobs import FILES, GREETING_PAGE, TAKE_PAGE, MakeAvatar, PlayTake
from pointillist_hf.app.settings import EXAMPLE_IMAGES, AppSettings, find_examples
from pointillist_hf.app.storage import Storage
from pointillist_hf.app.studio import STEPS, Studio, describe_progress
from pointillist_hf.app.worker import JobError

TAKE = "jawOpen,eyeBlinkLeft\n0,0\n0.5,0\n1,1\n"


class WorkerHere:
    """Does jobs without a process."""

    def __init__(self, pipe):
        self.pipe, self.told = pipe, []

    def run(self, job, on_progress=None, is_wanted=lambda: True):
        try:
            return job.run(self.pipe, on_progress or (lambda *news: None))
        except ValueError as error:
            raise JobError(str(error)) from error


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.fixture
def studio(pipe, tmp_path):
    return Studio(AppSettings(), WorkerHere(pipe), Storage(tmp_path / "avatars"))


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "me.jpg"
    with Image.open(EXAMPLE_IMAGES / "astronaut.jpg") as image:
        image.save(path)
    return path


def test_a_photograph_becomes_files(studio, photograph):
    told = []
    made = studio.make("a", photograph, seed=3, on_progress=lambda *news: told.append(news))
    files = studio.list_files("a")
    assert [*files] == [*FILES]
    assert all(path.stat().st_size > 0 for path in files.values())
    avatar = Avatar.from_pretrained(files["avatar.ply"].parent / "avatar")
    assert len(avatar) == made.num_points
    with zipfile.ZipFile(files["avatar.zip"]) as archive:
        assert {"avatar.json", "avatar.safetensors"} <= {*archive.namelist()}
    assert {step for step, _ in told} == {*STEPS}
    assert "<canvas>" in studio.read_page("a", GREETING_PAGE)
    kept = {path.suffix for path in files["avatar.ply"].parent.rglob("*")}
    assert ".jpg" not in kept


def test_the_points_can_be_watched(studio, photograph, tmp_path):
    studio.expect("a")
    made = studio.make("a", photograph, seed=3)
    cloud = studio.wait_for_cloud("a")
    assert 0 < len(cloud) <= made.num_points
    assert show_cloud(cloud).count("<circle") == len(cloud)
    assert all(len(point) == 3 for point in cloud)
    wrong = tmp_path / "wrong.jpg"
    wrong.write_text("I am no picture.")
    studio.expect("a")
    with pytest.raises(JobError):
        studio.make("a", wrong)
    assert studio.wait_for_cloud("a") == []  # and whoever waits is not kept waiting


def test_the_same_seed_gives_the_same_avatar(studio, pipe, photograph):
    studio.make("a", photograph, seed=3)
    first = studio.list_files("a")["avatar.ply"].read_bytes()
    studio.make("b", photograph, seed=3)
    assert studio.list_files("b")["avatar.ply"].read_bytes() == first
    direct = pipe(str(photograph), seed=3, refine_steps=0).avatar
    saved = Avatar.from_pretrained(studio.list_files("b")["avatar.ply"].parent / "avatar")
    assert torch.equal(saved.gaussians.means, direct.gaussians.means)


def test_a_recording_becomes_a_page(studio, photograph, tmp_path):
    studio.make("a", photograph)
    take = tmp_path / "take.csv"
    take.write_text(TAKE)
    assert studio.read_page("a", TAKE_PAGE) is None
    assert studio.play("a", take).num_frames >= 2
    assert '"fps": 25.0' in studio.read_page("a", TAKE_PAGE)


def test_visitors_see_their_own_only(studio, photograph):
    studio.make("a", photograph)
    assert studio.list_files("b") == {}
    assert studio.read_page("b", GREETING_PAGE) is None


def test_what_fails_leaves_the_avatar_before(studio, photograph, tmp_path):
    studio.make("a", photograph)
    before = studio.list_files("a")
    wrong = tmp_path / "wrong.jpg"
    wrong.write_text("I am no picture.")
    with pytest.raises(JobError, match="`image`"):
        studio.make("a", wrong)
    assert studio.list_files("a") == before
    assert len([*studio.storage.root.iterdir()]) == 1


def test_without_files_there_is_a_sentence(studio, photograph, tmp_path):
    with pytest.raises(JobError, match="upload a photograph"):
        studio.make("a", None)
    with pytest.raises(JobError, match="make an avatar"):
        studio.play("a", tmp_path / "take.csv")
    studio.make("a", photograph)
    with pytest.raises(JobError, match="upload a recording"):
        studio.play("a", None)


def test_long_recordings_are_refused(tiny_avatar, pipe, tmp_path):
    tiny_avatar.save_pretrained(tmp_path / "avatar")
    take = tmp_path / "take.csv"
    take.write_text("jawOpen\n" + "0\n" * 9200)
    with pytest.raises(ValueError, match="at most 300 seconds"):
        PlayTake(take, tmp_path).run(pipe, lambda *news: None)


def test_nobody_gets_more_steps_than_there_are(pipe, photograph, tmp_path):
    asked = []

    class Listener(WorkerHere):
        def run(self, job, *options):
            asked.append(job)
            return super().run(MakeAvatar(job.photograph, job.output), *options)

    settings = AppSettings(max_refine_steps=20)
    studio = Studio(settings, Listener(pipe), Storage(tmp_path / "avatars"))
    studio.make("a", photograph, refine_steps=10_000)
    assert asked[0].refine_steps == 20


def test_progress_never_goes_back():
    news = [(step, done) for step in STEPS for done in (0, 1, 50, 100)]
    shares = [describe_progress(step, done, refine_steps=100)[0] for step, done in news]
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] <= 1
    assert describe_progress("generate_tokens", 412)[1] == "Writing points: 412"
    assert describe_progress("refine", 7, 40)[1].endswith("step 7 of 40")


def test_a_page_within_the_page_cannot_leave_its_frame():
    page = '<html><head></head><body>"quoted" & <script>alert(1)</script></body></html>'
    frame = show_page(page)
    assert frame.count("<") == 2  # the frame's own tags
    assert 'sandbox="allow-scripts"' in frame
    assert "allow-same-origin" not in frame
    assert show_nothing().count("<circle") > 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"time_limit": 0},
        {"max_megabytes": 0},
        {"max_refine_steps": -1},
        {"queue_size": 0},
        {"keep_minutes": 0.5},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number"):
        AppSettings(**wrong)


def test_examples_are_those_of_the_checkout(tmp_path):
    assert EXAMPLE_IMAGES / "astronaut.jpg" in find_examples()
    assert find_examples(tmp_path / "nowhere") == ()

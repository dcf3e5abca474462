# SPDX-License-Identifier: Apache-2.0
"""The files of visitors: whose they are, and that they go."""

import pytest

from pointillist_hf.app.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "avatars")


def upload(tmp_path, name="me.jpg"):
    path = tmp_path / name
    path.write_bytes(b"picture")
    return path


def test_a_visit_ends_and_nothing_is_left(storage, tmp_path):
    photograph, folder = upload(tmp_path), storage.new_folder()
    (folder / "avatar.ply").touch()
    storage.keep_upload("a", "photograph", photograph)
    storage.keep_folder("a", folder)
    visit = storage.visit("a")
    storage.end_visit("a")
    assert not photograph.exists()
    assert not folder.exists()
    assert not visit.is_wanted
    assert visit.has_cloud.is_set()  # who waits for points is let go
    storage.end_visit("a")  # a second time there is nothing to do


def test_what_is_newer_takes_the_place(storage, tmp_path):
    first, second = storage.new_folder(), storage.new_folder()
    storage.keep_folder("a", first)
    storage.keep_folder("a", second)
    assert [first.exists(), second.exists()] == [False, True]
    old, new, take = (upload(tmp_path, name) for name in ("old.jpg", "new.jpg", "take.csv"))
    for place, path in (("photograph", old), ("take", take), ("photograph", new)):
        storage.keep_upload("a", place, path)
    assert [old.exists(), new.exists(), take.exists()] == [False, True, True]
    storage.keep_upload("a", "photograph", new)  # once more, for another avatar of it
    assert new.exists()


def test_a_file_that_two_visitors_hold_stays_for_the_second(storage, tmp_path):
    photograph = upload(tmp_path)
    for visitor in ("a", "b"):
        storage.keep_upload(visitor, "photograph", photograph)
    storage.end_visit("a")
    assert photograph.exists()
    storage.end_visit("b")
    assert not photograph.exists()


def test_the_page_keeps_its_own_files(tmp_path):
    example = upload(tmp_path)
    storage = Storage(tmp_path / "avatars", is_kept=lambda path: path == example)
    storage.keep_upload("a", "photograph", example)
    storage.end_visit("a")
    assert example.exists()


def test_folders_cannot_be_guessed(storage):
    names = {storage.new_folder().name for _ in range(20)}
    assert len(names) == 20
    assert min(len(name) for name in names) >= 20


def test_old_visits_end(storage, tmp_path):
    storage.keep_upload("old", "photograph", upload(tmp_path, "old.jpg"))
    storage.keep_upload("new", "photograph", upload(tmp_path, "new.jpg"))
    storage.visit("old").last_seen -= 3600
    storage.end_old_visits(1800)
    assert not (tmp_path / "old.jpg").exists()
    assert (tmp_path / "new.jpg").exists()

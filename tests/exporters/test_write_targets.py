# SPDX-License-Identifier: Apache-2.0
"""Places to write to: what is refused, what is followed, what is left behind."""

import errno
import os
import stat

import pytest

from pointillist_hf.exporters.atomic_file import write_atomically, write_folder_atomically
from pointillist_hf.exporters.write_targets import resolve_file, resolve_folder

is_root = hasattr(os, "geteuid") and os.geteuid() == 0


def write(path, text="fresh"):
    write_atomically(path, lambda partial: partial.write_text(text))


def test_links_stay_links(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "shared.txt").write_text("old")
    (tmp_path / "near").symlink_to("disk/shared.txt")
    (tmp_path / "far").symlink_to("near")
    (tmp_path / "folder").symlink_to("disk")
    for name, text in (("near", "one"), ("far", "two"), ("folder/shared.txt", "three")):
        write(tmp_path / name, text)
        assert (tmp_path / "disk" / "shared.txt").read_text() == text
    assert (tmp_path / "near").is_symlink() and (tmp_path / "far").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["shared.txt"]


def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "new" / "file.txt")
    write(tmp_path / "link")
    assert (tmp_path / "new" / "file.txt").read_text() == "fresh"
    assert (tmp_path / "link").is_symlink()


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"the link .*a to itself") as caught:
        write(tmp_path / "a")
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "a").is_symlink()


def test_a_folder_behind_a_link_is_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "frames").symlink_to("disk")
    write_folder_atomically(tmp_path / "frames", lambda f: (f / "0.png").write_text("x"))
    assert (tmp_path / "frames").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["0.png"]


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "é" * 125 + ".txt", b"caf\xe9.txt", "%s {0}"])
def test_names_that_the_disk_takes(tmp_path, name):
    name = os.fsdecode(name)
    write(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "fresh"


@pytest.mark.parametrize("resolve", [resolve_file, resolve_folder])
def test_names_that_the_disk_does_not_take(tmp_path, resolve):
    with pytest.raises(OSError, match=r"`path` must have a name that the disk takes"):
        resolve(tmp_path / ("a" * 256))
    with pytest.raises(ValueError, match="must not hold a zero character"):
        resolve(tmp_path / "a\0b")


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("old")
    calls = []
    for path, match in (
        (tmp_path, "`path` must be a file to write, and .* is a folder"),
        (tmp_path / "file" / "new", "`path` must lie in a folder"),
        (tmp_path / "file" / "new" / "newer", "`path` must lie in a folder"),
        ("/dev/null", "`path` must be an ordinary file, and /dev/null is a device"),
    ):
        with pytest.raises(OSError, match=match):
            write_atomically(path, calls.append)
    with pytest.raises(NotADirectoryError, match=r"`path` must be a folder, and .*file is a file"):
        resolve_folder(tmp_path / "file")
    assert calls == [] and (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(is_root, reason="root may write everywhere")
def test_read_only_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(PermissionError, match=r"a file that may be changed, and .* is read-only"):
        resolve_file(tmp_path / "file")
    (tmp_path / "folder").mkdir(mode=0o555)
    for resolve in (resolve_file, resolve_folder):
        with pytest.raises(PermissionError, match="`path` must lie where you may write"):
            resolve(tmp_path / "folder" / "a" / "b")


def test_permissions_of_the_old_file_stay(tmp_path):
    write(tmp_path / "file", "old")
    plain = stat.S_IMODE((tmp_path / "file").stat().st_mode)
    (tmp_path / "usual").write_text("")
    assert plain == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    (tmp_path / "file").chmod(0o640)
    write(tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640

    def write_privately(partial):
        partial.unlink()
        partial.touch(mode=0o600)

    write_atomically(tmp_path / "new", write_privately)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == plain


def test_a_writer_inside_a_writer(tmp_path):
    path = tmp_path / "file"

    def outer(partial):
        partial.write_text("outer, ")
        write(path, "inner")
        assert path.read_text() == "inner"
        with partial.open("a") as file:
            file.write("to the end")

    write_atomically(path, outer)
    assert path.read_text() == "outer, to the end"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_full_disks_are_said_to_be_full(tmp_path):
    path = tmp_path / "file"
    write(path, "old")

    def fill(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"must lie where there is room, and the disk of .*file is"):
        write_atomically(path, fill)
    with pytest.raises(OSError, match="must lie where there is room"):
        write_folder_atomically(tmp_path / "new", lambda folder: fill(folder / "half"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"

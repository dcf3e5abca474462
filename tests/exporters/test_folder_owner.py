# SPDX-License-Identifier: Apache-2.0
"""One folder, one writer: between threads, processes, and those that were killed."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from pointillist_hf.exporters.atomic_file import write_atomically, write_folder_atomically
from pointillist_hf.exporters.folder_owner import own_folder

HOLD = """
import sys
from pointillist_hf.exporters.folder_owner import own_folder
with own_folder(sys.argv[1]) as folder:
    (folder / f".{__import__('os').getpid()}-ab12cd34.partial").write_text("half")
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that owns `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"mine\n"
    with process:
        yield process
        process.kill()


def test_the_folder_is_made_and_left_without_a_trace(tmp_path):
    with own_folder(tmp_path / "new" / "run") as folder:
        assert folder == tmp_path / "new" / "run"
        assert f"process {os.getpid()} " in (folder / ".lock").read_text()
        write_atomically(folder / "file", lambda partial: partial.write_text("x"))
    assert [p.name for p in folder.iterdir()] == ["file"]
    with pytest.raises(KeyError), own_folder(folder):
        raise KeyError
    assert [p.name for p in folder.iterdir()] == ["file"]


def test_a_second_owner_is_told_of_the_first(tmp_path, tiny_avatar):
    owned = rf"one writer at a time, and .*run is being written by process {os.getpid()} on"
    with own_folder(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match=owned), own_folder(tmp_path / "run"):
            pass
        with pytest.raises(BlockingIOError, match="one writer at a time"):
            tiny_avatar.save_pretrained(tmp_path / "run")
        with own_folder(tmp_path / "run" / "inner"), own_folder(tmp_path / "other"):
            pass
        assert (tmp_path / "run" / ".lock").is_file()
    tiny_avatar.save_pretrained(tmp_path / "run")


def test_another_process_is_told_too_and_its_death_frees_the_folder(tmp_path, other):
    with pytest.raises(BlockingIOError, match=rf"by process {other.pid} on .*; wait until it ends"):
        own_folder(tmp_path / "run").__enter__()
    assert (tmp_path / "run" / f".{other.pid}-ab12cd34.partial").is_file()
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / ".lock").is_file()
    with own_folder(tmp_path / "run") as folder:
        assert [p.name for p in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("text", ["", "process 1 on elsewhere\n", "\x00\xff not a lock"])
def test_lock_files_without_an_owner_are_taken_over(tmp_path, text):
    (tmp_path / ".lock").write_text(text, "latin-1")
    with own_folder(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_only_what_dead_processes_left_is_removed(tmp_path):
    alive = tmp_path / f".{os.getpid()}-00000000.partial"
    foreign = tmp_path / ".notes-1.partial"
    dead = tmp_path / f".{2**22 + 1}-00000000.partial"
    for path in (alive, foreign, dead):
        path.mkdir()
    with own_folder(tmp_path):
        assert alive.is_dir() and foreign.is_dir() and not dead.exists()


def test_two_writers_of_one_new_folder(tmp_path):
    """The second is refused before it works, and the first one's folder is whole."""
    calls = []

    def fill(folder):
        (folder / "0.png").write_text("first")
        with pytest.raises(BlockingIOError, match=r"one writer at a time, and .*frames is being"):
            write_folder_atomically(tmp_path / "frames", calls.append)
        write_folder_atomically(tmp_path / "others", lambda f: (f / "x").write_text("x"))

    write_folder_atomically(tmp_path / "frames", fill)
    assert calls == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames", "others"]
    assert [p.name for p in (tmp_path / "frames").iterdir()] == ["0.png"]


def test_many_threads_take_turns(tmp_path):
    """However they meet, the folder has one owner at a time."""
    inside, most, refused, taken = [], [], [], []

    def work():
        for _ in range(40):
            try:
                with own_folder(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    taken.append(1)
                    inside.pop()
            except BlockingIOError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(taken) + len(refused) == 160 and taken
    assert not list((tmp_path / "run").iterdir())

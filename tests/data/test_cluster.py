# SPDX-License-Identifier: Apache-2.0
"""Work that a cluster does is the work that is done here, also when a worker dies."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from capture_files import tiny_capture
from typer.testing import CliRunner

from pointillist_hf.cli import app
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.cluster import seen_from
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.runner import CHECKPOINT_FILE, fit_captures
from pointillist_hf.data.tokens.fit_row import TokenizeConfig
from pointillist_hf.data.tokens.tokenize_fits import tokenize_fits
from pointillist_hf.data.work_pool import run_jobs
from pointillist_hf.exporters.folder_owner import LOCK_FILE

CONFIG = FitConfig.preset("fast", num_steps=60, save_every=5, sh_degree=1)
TOKENS = TokenizeConfig(
    num_bins=128, num_portraits=2, num_views=3, image_size=32, num_rig_points=20, num_test=1
)
PEOPLE = ("anna", "bert", "cleo", "dora")


def negate(job):
    return -job


def start(kind, *words):
    code = f"from distributed.cli.dask_{kind} import main; main()"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    }
    # In another folder than the caller, as on another machine.
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=environment,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def read_address(process):
    for line in process.stderr:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", line)
        if found:
            # Otherwise the pipe would fill, and the scheduler wait for a reader.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[1]
    raise AssertionError("the scheduler has ended")


def stop(process):
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.fixture
def scheduler():
    pytest.importorskip("distributed")
    process = start("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--no-show")
    yield read_address(process)
    stop(process)


@pytest.fixture
def start_worker(scheduler, tmp_path):
    """Starts a worker process of the scheduler, which nobody restarts."""
    processes = []

    def start_one(threads=1):
        words = ("--nthreads", threads, "--no-nanny", "--no-dashboard")
        process = start("worker", scheduler, *words, "--local-directory", tmp_path / "dask")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        stop(process)


def files_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_one_at_work(fits, killed):
    """Kills the first process that is in the middle of a fit."""
    while not killed:
        for checkpoint in fits.glob(f"*/{CHECKPOINT_FILE}"):
            lock = checkpoint.with_name(LOCK_FILE)
            owner = re.match(r"process (\d+) on", lock.read_text() if lock.is_file() else "")
            if owner:
                os.kill(int(owner[1]), signal.SIGKILL)
                killed.append(int(owner[1]))
                return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_same_files(
    scheduler, start_worker, tmp_path, monkeypatch
):
    workers = [start_worker(), start_worker()]
    for name in PEOPLE:
        write_capture(tiny_capture(), tmp_path / "captures" / name)
    monkeypatch.chdir(tmp_path)
    captures = [f"captures/{name}" for name in PEOPLE]  # relative: workers are elsewhere
    killed = []
    killer = threading.Thread(
        target=kill_one_at_work, args=(tmp_path / "fits", killed), daemon=True
    )
    killer.start()
    failed = fit_captures(captures, "fits", CONFIG, cluster=scheduler, show_progress=False)
    killer.join(timeout=1)
    assert failed == {}
    assert [worker.poll() for worker in workers].count(-signal.SIGKILL) == 1
    assert killed[0] in [worker.pid for worker in workers]
    assert fit_captures(captures, "alone", CONFIG, show_progress=False) == {}
    assert files_of(tmp_path / "fits") == files_of(tmp_path / "alone")

    start_worker()
    assert tokenize_fits(["fits"], "rows", TOKENS, cluster=scheduler, show_progress=False) == {}
    assert tokenize_fits(["alone"], "rows_alone", TOKENS, show_progress=False) == {}
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "rows_alone")


@pytest.mark.slow
def test_workers_of_many_threads_are_refused(scheduler, start_worker):
    distributed = pytest.importorskip("distributed")
    start_worker(threads=2)
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
    with pytest.raises(ValueError, match="`cluster` must have workers of one thread"):
        list(run_jobs(negate, [1], cluster=scheduler, show_progress=False))


def test_an_address_where_nobody_answers_is_refused(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("pointillist_hf.data.cluster.CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "tcp://"):
        with pytest.raises(ConnectionError, match="`cluster` must be the address of a dask"):
            list(run_jobs(negate, [1], cluster=address, show_progress=False))


def test_the_extra_that_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    write_capture(tiny_capture(), tmp_path / "anna")
    words = ["fit", str(tmp_path / "anna"), "-o", str(tmp_path / "fits"), "--cluster", "tcp://a:1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "pointillist-hf[cluster]" in done.stderr


def test_processes_are_not_asked_for_beside_a_cluster():
    with pytest.raises(ValueError, match="`num_proc` must be 1 with `cluster`"):
        list(run_jobs(negate, [1], num_proc=2, cluster="tcp://127.0.0.1:9"))


def test_without_a_cluster_paths_stay_as_they_are():
    assert str(seen_from(None, "fits")) == "fits"
    assert seen_from("tcp://127.0.0.1:9", "fits").is_absolute()
    assert seen_from("tcp://127.0.0.1:9", None) is None

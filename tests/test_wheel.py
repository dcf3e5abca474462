# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: from a source archive to a wheel, away from the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

from pointillist_hf import AvatarPipeline, PortraitTracker
from pointillist_hf.default_model import MODEL_ID

ROOT = Path(__file__).parent.parent
PHOTOGRAPH = ROOT / "examples" / "images" / "astronaut.jpg"
BUILD_ARCHIVE = "import sys; from setuptools import build_meta as b; b.build_sdist(sys.argv[1])"
SOURCES = ("src", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed package; what it needs is that of the tests."""
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, place / "tree" / name
        target.parent.mkdir(exist_ok=True)
        skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, target, ignore=skip) if source.is_dir() else shutil.copy(
            source, target
        )
    build = [sys.executable, "-c", BUILD_ARCHIVE, str(place)]
    subprocess.run(build, cwd=place / "tree", check=True, capture_output=True)
    options = ("--no-deps", "--no-index", "--no-build-isolation", "-w", str(place))
    pip("wheel", *options, str(next(place.glob("*.tar.gz"))))
    wheel = next(place.glob("*.whl"))
    pip("install", "--no-deps", "--no-index", "--target", str(place / "site"), str(wheel))
    return place / "site"


def run(site, folder, *arguments, **environment):
    command = [sys.executable, "-m", "pointillist_hf.cli", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(site), **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_the_wheel_holds_what_the_package_needs(site):
    installed = {p.relative_to(site).as_posix() for p in (site / "pointillist_hf").rglob("*")}
    sources = {
        p.relative_to(ROOT / "src").as_posix()
        for p in (ROOT / "src" / "pointillist_hf").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert sources <= installed
    assert "pointillist_hf/py.typed" in installed


@pytest.mark.slow
def test_the_command_works_away_from_the_repository(site, tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path / "me")
    result = run(site, tmp_path, "info", "me")
    assert result.returncode == 0, result.stderr
    assert f"avatar of {len(tiny_avatar)} points" in result.stdout


@pytest.mark.slow
def test_without_network_and_cache_one_line_says_what_to_do(site, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = run(site, tmp_path, "avatar", PHOTOGRAPH, "-o", "me", **offline)
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(lines) == 1
    assert f"`{MODEL_ID}` is no folder here, not in the cache of the Hub" in lines[0]
    assert f"Model: {MODEL_ID}, from the Hub" in result.stderr


@pytest.mark.slow
def test_the_default_model_comes_from_the_hub(site, tiny_pipeline, tmp_path):
    embedded = ROOT / "model_cards" / "pointillist-tiny" / "portrait_tracker"
    parts = {
        **tiny_pipeline.components,
        "portrait_tracker": PortraitTracker.from_pretrained(embedded),
    }
    AvatarPipeline(**parts, max_points=4).save_pretrained(tmp_path / "model")
    with HubServer() as hub:
        hub.publish(MODEL_ID, tmp_path / "model")
        online = hub.environment(tmp_path / "home", token=None)
        result = run(site, tmp_path, "avatar", PHOTOGRAPH, "-o", "me", **online)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"Model: {MODEL_ID}, from the Hub" in result.stderr
    assert "Compiling CPU kernels" in result.stderr
    assert (tmp_path / "me" / "avatar" / "avatar.json").is_file()

# SPDX-License-Identifier: Apache-2.0
"""The README's promises, run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
(QUICKSTART,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
needs_model = pytest.mark.skipif(
    not (ROOT / "model_cards" / "pointillist-tiny" / "model_index.json").is_file(),
    reason="model_cards/pointillist-tiny is not there; make checkpoint trains it",
)


@needs_model
def test_quickstart(tmp_path, monkeypatch):
    for name in ("model_cards", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(QUICKSTART, "README.md", "exec"), {})
    written = {path.name for path in tmp_path.iterdir()}
    assert {"smile.png", "me", "me.ply"} <= written


def test_quickstart_is_an_example_too():
    script = (ROOT / "examples" / "quickstart.py").read_text()
    assert script.endswith(f'"""\n\n{QUICKSTART}')


def test_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_scripts_and_links_exist():
    for script in re.findall(r"(?:examples|benchmarks)/\w+\.py", README):
        assert (ROOT / script).is_file(), script
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).is_file() or link.startswith("docs/images/"), link


def test_every_example_is_listed():
    listed = (ROOT / "examples" / "README.md").read_text()
    for script in (ROOT / "examples").glob("*.py"):
        assert f"`{script.name}`" in listed, script.name


def test_citation_names_the_version():
    version = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    source = (ROOT / "src" / "pointillist_hf" / "__init__.py").read_text()
    assert f'__version__ = "{version[1]}"' in source

# SPDX-License-Identifier: Apache-2.0
"""The documentation site: it builds strictly, leads nowhere wrong, and asks no other server."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

import pointillist_hf

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return place


def read(page):
    return page.read_text("utf-8")


def test_every_page_of_the_repository_is_there(site):
    names = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in ROOT.glob("docs/*.md")} <= names
    assert {"index", "reference", "notebook", "contributing", "examples"} <= names


def test_links_lead_to_files(site):
    # That of what is not found knows the place of the server only.
    for page in {*site.glob("*.html")} - {site / "404.html"}:
        for link in re.findall(r'(?:href|src)="?([^"\s>]+)', read(page)):
            path = unquote(unescape(link)).partition("#")[0].partition("?")[0]
            if path and not re.match(r"[a-z]+:", path):
                assert (page.parent / path).exists(), f"{link} in {page.name}"


def test_nothing_is_loaded_from_other_servers(site):
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\"\s>]+)", read(page))
        loaded += re.findall(
            r"<link[^>]*rel=\"?stylesheet[^>]* href=\"?(https?:[^\"\s>]+)", read(page)
        )
        assert not loaded, page.name


def test_the_reference_holds_the_public_names(site):
    reference = read(site / "reference.html")
    for name in pointillist_hf.__all__:
        if not name.startswith("_"):
            assert re.search(rf'id="?pointillist_hf[\w.]*\.{name}["\s>]', reference), name
    assert "align_points" in reference
    assert "&gt;&gt;&gt; pipe" in reference or 'class="gp"' in reference  # examples are code

# SPDX-License-Identifier: Apache-2.0
"""The notebook: its cells run in their order, and it shows what they make."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pointillist_hf import Avatar

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "from_photograph_to_page.ipynb"
MAX_BYTES = 1_000_000


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    shutil.copytree(EXAMPLES / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for cell in cells("code"):
        code = "".join(cell["source"])
        exec(compile(code, f"{NOTEBOOK.name}, {cell['id']}", "exec"), namespace)
    assert "<canvas>" in Path("me.html").read_text("utf-8")
    assert len(Avatar.from_pretrained("me")) > 5000
    with Image.open("clip.gif") as clip:
        assert clip.n_frames == 24
    errors = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()
              if "mean error" in line]  # fmt: skip
    assert errors[1] < errors[0]


def test_the_notebook_shows_what_it_makes():
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 5
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert "/tmp" not in NOTEBOOK.read_text("utf-8")


def test_the_notebook_leads_somewhere():
    words = "".join("".join(cell["source"]) for cell in cells("markdown"))
    for page in ("photographs.md", "formats.md", "app.md"):
        assert f"](../docs/{page})" in words
        assert (EXAMPLES.parent / "docs" / page).is_file()

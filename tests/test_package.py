# SPDX-License-Identifier: Apache-2.0
"""What `import pointillist_hf` gives, and what the package says of itself."""

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import pointillist_hf

ROOT = Path(__file__).parent.parent


def run_python(code):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_root_loads_no_library():
    heavy = {"torch", "numpy", "numba", "transformers", "diffusers", "PIL", "cv2", "safetensors"}
    loaded = run_python("import sys, pointillist_hf; print(*sys.modules)")
    assert "pointillist_hf" in loaded
    assert not heavy & {*loaded}


def test_the_root_is_imported_at_once():
    clock = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    code = clock.format("import pointillist_hf")
    seconds = min(float(run_python(code)[0]) for _ in range(5))
    assert seconds < 0.05


@pytest.mark.parametrize("name", pointillist_hf.__all__)
def test_public_names_resolve(name):
    value = getattr(pointillist_hf, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(pointillist_hf)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Avatarr'"):
        pointillist_hf.Avatarr  # noqa: B018


def test_version_is_read_without_running_the_package():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: pointillist_hf.__version__"
    # setuptools reads the assignment from the source only when its value is a literal.
    tree = ast.parse((ROOT / "src" / "pointillist_hf" / "__init__.py").read_text())
    versions = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert versions == [pointillist_hf.__version__]


def test_release_notes_and_citation_name_the_version():
    version = pointillist_hf.__version__
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    day = re.search(r"^date-released: (\d{4}-\d\d-\d\d)$", citation, re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in citation
    assert f"## [{version}] - {day}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_console_script_exists():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    script = setup["options.entry_points"]["console_scripts"].strip()
    assert script == "pointillist-hf = pointillist_hf.cli:main"
    assert run_python("from pointillist_hf.cli import main; print(callable(main))") == ["True"]


def test_dependencies_have_a_home():
    """Every requirement is imported somewhere, every imported library is required."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    lines = [line for line in lines if line and not line.startswith("#")]
    required = {line.split(">")[0].replace("-", "_") for line in lines}
    tree = [ast.parse(p.read_text()) for p in (ROOT / "src").rglob("*.py")]
    imported = {
        name.split(".")[0]
        for module in tree
        for node in ast.walk(module)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    called = {"PIL": "pillow", "cv2": "opencv_python_headless", "yaml": "pyyaml"}
    # Extras; a dependency of numba; ourselves, in scripts that evaluate copies.
    comes_along = {"gsplat", "gradio", "imageio_ffmpeg", "evaluate", "distributed", "llvmlite"}
    comes_along |= {"pointillist_hf"}
    third_party = imported - {*sys.stdlib_module_names} - comes_along
    assert {called.get(name, name) for name in third_party} == required

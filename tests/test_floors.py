# SPDX-License-Identifier: Apache-2.0
"""Who may import what. The tables are the law; docstrings, names and types are ruff's business."""

import ast
import sys
from functools import lru_cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "pointillist_hf"

# A file imports from lower floors, and on its own floor from its own folder only.
FLOORS = (
    {"geometry", "kernels", "guarded_push.py"},
    {"rigs", "rendering"},
    {"motion", "portraits", "models", "exporters"},
    {"decoding", "publishing", "pretrained"},
    {"avatar.py"},
    {"refinement"},
    {"pipeline_avatar.py", "pipeline_inputs.py", "pipeline_output.py", "pipeline_parts.py"}
    | {"pipeline_steps.py", "pipeline_hub.py", "default_model.py", "first_use.py"}
    | {"lazy_registration.py", "registration.py", "pipeline_candidates.py"},
    {"data"},
    {"training"},
    {"evaluation", "cli_errors.py"},
    {"app"},
    {"cli.py", "cli_app.py", "cli_convert.py", "cli_evaluate.py"} | {"cli_hub.py", "__init__.py"},
)
FILES_OF_ROOT = {name for names in FLOORS for name in names if name.endswith(".py")}
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Lower floors that a floor does without nevertheless: data need no avatar.
CLOSED = {
    "data": {"decoding", "avatar.py", "refinement"} | FLOORS[6],
}
# The folders in which a third-party library is at home. A library without a home is refused.
HOMES = {
    "torch": {*FLOOR}
    - FLOORS[-1]
    - {
        "cli_errors.py",
        "registration.py",
        "lazy_registration.py",
        "default_model.py",
        "pipeline_hub.py",
        "kernels",
        "guarded_push.py",
    },
    "numpy": {*FLOOR} - {"geometry", "publishing", "refinement", "training", "app"} - FILES_OF_ROOT,
    "PIL": {"portraits", "exporters", "data", "evaluation"},
    "tqdm": {"exporters", "refinement", "data", "training", "evaluation"},
    # The kernels that draw, and those that decode tokens on the CPU. llvmlite comes with numba.
    "numba": {"kernels", "rendering", "decoding/cpu"},
    "llvmlite": {"kernels", "decoding/cpu"},
    "gsplat": {"rendering"},
    "cv2": {"portraits"},
    "imageio_ffmpeg": {"exporters"},
    "diffusers": {"rigs", "portraits"}
    | {"pipeline_output.py", "pipeline_hub.py", "pipeline_parts.py"},
    "transformers": {"portraits", "models", "decoding", "training", "evaluation"}
    | {"registration.py"},
    "huggingface_hub": {"models", "publishing"},
    "safetensors": {"rigs/flame", "exporters", "models", "publishing", "data/fitting", "training"},
    "datasets": {"data/tokens", "evaluation"},
    "evaluate": {"evaluation"},
    "distributed": {"data/cluster.py"},
    # Scripts that evaluate copies elsewhere before it runs them.
    "pointillist_hf": {"evaluation/modules"},
    "accelerate": {"training"},
    "yaml": {"training"},
    "gradio": {"app"},
    "typer": {"cli.py", "cli_app.py", "cli_convert.py", "cli_evaluate.py", "cli_hub.py"},
}
# Who may import inside functions, and why.
HIDDEN = {
    "rendering/rasterize.py": "the CPU kernels take a second to load, gsplat is optional",
    "rendering/gsplat_backend.py": "gsplat is optional",
    "exporters/video.py": "imageio-ffmpeg is optional",
    "data/cluster.py": "dask.distributed is optional",
    "cli.py": "--help answers before torch is loaded",
    "cli_convert.py": "likewise",
    "cli_app.py": "likewise, and gradio is optional",
    "cli_evaluate.py": "likewise",
    "cli_hub.py": "likewise",
}
REFUSED_NAMES = {"print", "torch.load", "pickle", "cPickle", "dill", "joblib"}
# Who may read pickles all the same: it builds nothing that they name.
RESTRICTED_READERS = {"rigs/flame/restricted_pickle.py", "pretrained/torch_checkpoint.py"}

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 80

FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
every_file = pytest.mark.parametrize("file", FILES)


def place(file):
    """The folder or root file that stands in `FLOORS`."""
    return file.split("/")[0]


def folders(file):
    """The file and the folders around it, as homes are named."""
    return {file, *(path.as_posix() for path in Path(file).parents)}


@lru_cache(None)
def parse(file):
    return ast.parse((SOURCE / file).read_text())


@lru_cache(None)
def imports(file):
    """(node, own file or None, library or None) of each import in a file, run or not."""
    found = []
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            found += [(node, None, alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node, None, node.module.split(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            folder = Path(file).parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                options = (folder / f"{alias.name}.py", folder.with_suffix(".py"))
                own = next((o for o in options if (SOURCE / o).is_file()), folder / "__init__.py")
                found.append((node, own.as_posix(), None))
    return found


def parts_of(file, *kinds):
    """All nodes inside the blocks of these kinds."""
    blocks = [node for node in ast.walk(parse(file)) if isinstance(node, kinds)]
    return {node for block in blocks for node in ast.walk(block)}


@every_file
def test_imports_go_down(file):
    here = place(file)
    for node, own, library in imports(file):
        at = f"{file}:{node.lineno}"
        if own is None:
            homes = HOMES.get(library, set())
            is_known = library in sys.stdlib_module_names or folders(file) & homes
            assert is_known, f"{at} may not import {library}"
            continue
        there = place(own)
        is_below = FLOOR[there] < FLOOR[here] and there not in CLOSED.get(here, ())
        is_root = "/" not in own and "/" not in file
        is_beside = FLOOR[there] == FLOOR[here] and (there == here or is_root)
        assert is_below or is_beside, f"{at} may not import {own}"


@every_file
def test_text_is_utf_8_on_every_machine(file):
    """Windows takes another encoding where none is named."""
    for node in ast.walk(parse(file)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name))):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        words = ast.unparse(node)
        is_text = name in ("read_text", "write_text")
        mode = next((a.value for a in node.args if isinstance(a, ast.Constant)), None)
        # Files that are opened to read or write text; "rb", "wb" and pictures are none.
        is_text |= name == "open" and mode in ("r", "w", "a", "x")
        runs = name in ("run", "Popen", "check_output") and "text=True" in words
        assert not (is_text or runs) or "utf-8" in words, f"{file}:{node.lineno} names no encoding"


@every_file
def test_no_shortcuts(file):
    in_functions = parts_of(file, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(parse(file)):
        at = f"{file}:{getattr(node, 'lineno', 0)}"
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        is_hidden = is_import and node in in_functions and file not in HIDDEN
        assert not is_hidden, f"{at} hides an import in a function"
        names = {alias.name for alias in node.names} if is_import else set()
        names |= {ast.unparse(node)} if isinstance(node, (ast.Name, ast.Attribute)) else set()
        allowed = {"pickle"} if file in RESTRICTED_READERS else set()
        assert not names & {*REFUSED_NAMES, "*"} - allowed, f"{at} uses {names}"
        assert not isinstance(node, ast.Assert), f"{at} asserts instead of raising"
        assert not isinstance(node, ast.ExceptHandler) or node.type, f"{at} catches everything"


def test_no_circles_of_files():
    graph = {file: {own for _, own, _ in imports(file)} - {None, file} for file in FILES}
    # The public names are resolved when they are used, and say nothing of how the files hang
    # together.
    graph["__init__.py"] = set()
    TopologicalSorter(graph).prepare()  # its CycleError names the circle


def test_no_circles_of_folders():
    graph = {}
    for file in FILES:
        for _, own, _ in imports(file):
            here, there = Path(file).parent, Path(own or file).parent
            if here != there and here not in there.parents and there not in here.parents:
                graph.setdefault(here.as_posix(), set()).add(there.as_posix())
    TopologicalSorter(graph).prepare()


def test_tables_hold_no_dead_rows():
    assert {place(file) for file in FILES} == {*FLOOR}
    assert {*HIDDEN, *RESTRICTED_READERS} <= {*FILES}
    used = {(library, home) for f in FILES for _, _, library in imports(f) for home in folders(f)}
    assert {(library, home) for library in HOMES for home in HOMES[library]} <= used


def test_files_and_functions_are_small():
    for file in FILES:
        assert len((SOURCE / file).read_text().splitlines()) <= MAX_FILE_LINES, file
        for node in ast.walk(parse(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= MAX_FUNCTION_LINES, f"{file}: {node.name} has {lines} lines"

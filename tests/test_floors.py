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
    {"geometry"},
    {"rigs", "rendering"},
    {"models", "exporters"},
    {"avatar.py"},
    {"pipeline_avatar.py", "registration.py"},
    {"data"},
    {"training"},
    {"evaluation"},
    {"cli.py", "__init__.py"},
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Lower floors that a floor does without nevertheless: data need no avatar.
CLOSED = {"data": {"avatar.py", "pipeline_avatar.py", "registration.py"}}
# Who may import a third-party library. A library without a home is refused.
HOMES = {
    "torch": {*FLOOR} - FLOORS[-1],
    "numpy": {"rigs", "rendering", "models", "exporters", "data", "training", "evaluation"},
    "PIL": {"models", "exporters", "data", "training", "evaluation"},
    "tqdm": {"data", "training", "evaluation"},
    # The kernels that draw, and those that decode tokens on the CPU.
    "numba": {
        "rendering",
        "models/cpu_arithmetic.py",
        "models/cpu_attention.py",
        "models/cpu_decoding.py",
        "models/cpu_depth.py",
        "models/cpu_layers.py",
        "models/cpu_products.py",
        "models/cpu_rounding.py",
        "models/cpu_sampling.py",
    },
    # Comes with numba.
    "llvmlite": {
        "rendering",
        "models/cpu_arithmetic.py",
        "models/cpu_products.py",
        "models/cpu_rounding.py",
    },
    "gsplat": {"rendering/gsplat_backend.py"},
    "cv2": {"models/portrait_detection.py"},
    "imageio_ffmpeg": {"exporters/video.py"},
    "diffusers": {"rigs", "pipeline_avatar.py", "registration.py"},
    "transformers": {"models", "training", "registration.py"},
    "huggingface_hub": {"models", "data/token_dataset.py"},
    "safetensors": {
        "avatar.py",
        "data/fit_state.py",
        "rigs/flame/model_file.py",
        "training/ema.py",
    },
    "datasets": {"data"},
    "accelerate": {"training"},
    "typer": {"cli.py"},
}
# Who may import inside functions, and why.
HIDDEN = {
    "rendering/rasterize.py": "the CPU kernels take a second to load, gsplat is optional",
    "rendering/gsplat_backend.py": "gsplat is optional",
    "exporters/video.py": "imageio-ffmpeg is optional",
    "cli.py": "--help answers before torch is loaded",
}
REFUSED_NAMES = {"print", "torch.load", "pickle", "cPickle", "dill", "joblib"}
# Who may read pickles all the same: it builds nothing that they name.
RESTRICTED_READERS = {"rigs/flame/restricted_pickle.py"}

FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
every_file = pytest.mark.parametrize("file", FILES)


def place(file):
    """The folder or root file that stands in `FLOORS`."""
    return file.split("/")[0]


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
            homes = HOMES.get(library, ())
            is_known = library in sys.stdlib_module_names or here in homes or file in homes
            assert is_known, f"{at} may not import {library}"
            continue
        there = place(own)
        is_below = FLOOR[there] < FLOOR[here] and there not in CLOSED.get(here, ())
        is_root = "/" not in own and "/" not in file
        is_beside = FLOOR[there] == FLOOR[here] and (there == here or is_root)
        assert is_below or is_beside, f"{at} may not import {own}"


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


def test_no_cycles():
    graph = {
        file: {
            own
            for node, own, _ in imports(file)
            # An import below an `if` is for the type checker, or hidden and allowed above.
            if own not in (None, file) and node not in parts_of(file, ast.If)
        }
        for file in FILES
    }
    TopologicalSorter(graph).prepare()  # its CycleError names the cycle


def test_tables_hold_no_dead_rows():
    assert {place(file) for file in FILES} == {*FLOOR}
    assert {*HIDDEN, *RESTRICTED_READERS} <= {*FILES}
    assert {*HOMES} <= {library for file in FILES for _, _, library in imports(file)}

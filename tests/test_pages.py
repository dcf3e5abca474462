# SPDX-License-Identifier: Apache-2.0
"""What the pages promise, run: blocks in their order, commands with small sizes, links, names."""

import ast
import configparser
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
import typer
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from fake_flame import write_flame
from page_blocks import (
    PAGES,
    ROOT,
    read_anchors,
    read_blocks,
    read_code_spans,
    read_links,
    read_prose,
)
from test_floors import FLOORS
from transformers import HfArgumentParser
from typer.testing import CliRunner

import pointillist_hf
from pointillist_hf.cli import app
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.training.run_arguments import LoopArguments, StageArguments

SOURCE = ROOT / "src" / "pointillist_hf"
ROOMS = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
COMMANDS = typer.main.get_command(app).commands
NOT_RUN = {"bibtex", "text"}  # languages of blocks that are only read
# Options that make a command small enough for a test. The last value of an option counts.
SMALL = {
    "animate": "--size 64",
    "synthesize": "--num-identities 2 --image-size 48 --num-timesteps 2 --num-cameras 4 "
    "--resolution low",
    "fit": "--num-steps 3 --num-proc 1",
    "tokenize": "--image-size 48",
    "make_dataset.py": "--num_train 4 --num_test 2 --num_proc 1 --num_skin_points 60 "
    "--hair_budget 40 --num_portraits 1 --num_views 2 --image_size 56 --own_every_face False",
    "contact_sheet.py": "--num_people 1 --size 48",
    "rig_gallery.py": "--num_people 1 --num_dressed 1 --size 24 --resolution low",
    "train.py": "--size nano-depth --max_steps 2 --batch_size 2",
}
# Commands that run until they are stopped.
SERVERS = {"app"}
# Scripts that take minutes at any size: their options are checked, and nothing is run.
LONG_SCRIPTS = {"ablate_generator.py", "ablate_decoder.py"}
LONG_SCRIPTS |= {path.name for path in ROOT.glob("benchmarks/*.py")}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
blocks = [block for page in PAGES for block in read_blocks(page)]
other_pages = sorted({b.page.relative_to(ROOT) for b in blocks if b.page != ROOT / "README.md"})
needs_model = pytest.mark.skipif(
    not (ROOT / "model_cards" / "pointillist-tiny" / "model_index.json").is_file(),
    reason="model_cards/pointillist-tiny is not there; make checkpoint trains it",
)


class OptionsAreKnownError(Exception):
    """Ends a script once its options are read."""


# stand-ins for what readers bring ----------------------------------------------------------------


def write_portrait(path):
    shutil.copyfile(ROOT / "examples" / "images" / "astronaut.jpg", path)


def write_take(path):
    path.write_text("jawOpen,eyeBlinkLeft\n0,0\n0.5,0\n1,1\n")


def write_vhap(path):
    poses = {name: np.zeros((2, 3)) for name in ("translation", "rotation", "neck_pose")}
    poses |= {"jaw_pose": np.full((2, 3), 0.1), "eyes_pose": np.zeros((2, 6))}
    np.savez(path, expr=np.zeros((2, 10)), shape=np.zeros(300), **poses)


def write_track(path):
    path.mkdir()
    rows = {"R": 6, "neck": 6, "jaw": 6, "shape": 300, "exp": 100, "t": 3}
    flame = {name: np.ones((1, width), "f4") for name, width in rows.items()}
    for name in ("R", "neck", "jaw"):
        flame[name][:] = (1, 0, 0, 0, 1, 0)
    flame["eyes"] = np.tile(flame["R"], 2)
    torch.save({"flame": flame}, path / "00000.frame")


def write_landmarks(path):
    faces, shares = np.arange(68)[None], np.full((1, 68, 3), 1 / 3)
    embedding = {"full_lmk_faces_idx": faces, "full_lmk_bary_coords": shares}
    np.save(path, embedding, allow_pickle=True)


STAND_INS = {
    "portrait.jpg": write_portrait,
    "take.csv": write_take,
    "flame2023.pkl": write_flame,
    "generic_model.pkl": write_flame,
    "tracked.npz": write_vhap,
    "track": write_track,
    "landmark_embedding_with_eyes.npy": write_landmarks,
}


# running -----------------------------------------------------------------------------------------


def run_script(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", words)
    # Python finds what lies beside a script.
    monkeypatch.syspath_prepend(str((ROOT / words[0]).parent))
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def check_script(words, monkeypatch):
    """Reads the options of a script as it would, and stops there."""
    with monkeypatch.context() as patch:
        read = HfArgumentParser.parse_args_into_dataclasses

        def read_and_stop(parser, *args, **kwargs):
            read(parser, *args, **kwargs)
            raise OptionsAreKnownError

        patch.setattr(HfArgumentParser, "parse_args_into_dataclasses", read_and_stop)
        with pytest.raises(OptionsAreKnownError):
            run_script(words, patch)


def check_make(targets):
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_pip(words):
    (package,) = words
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", package)
    assert extra, f"pip installs {package}"
    if extra[1]:
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert extra[1] in setup["options.extras_require"]


def do_command(words, monkeypatch, *, is_run):
    """Runs a line of a shell block with small sizes, or checks that its options exist."""
    match words:
        case ["pointillist-hf", name, *options]:
            COMMANDS[name].make_context(name, list(options))
            if is_run and name not in SERVERS:
                small = SMALL.get(name, "").split()
                result = CliRunner().invoke(app, [name, *options, *small])
                assert result.exit_code == 0, result.output
        case ["accelerate", "launch", *rest] if rest[0].startswith("-"):
            launch_command_parser().parse_args(rest)
            script = next(i for i, word in enumerate(rest) if word.endswith(".py"))
            do_command(["accelerate", "launch", *rest[script:]], monkeypatch, is_run=is_run)
        case ["python", script, *options] | ["accelerate", "launch", script, *options]:
            name = script.split("/")[-1]
            check_script([script, *options], monkeypatch)
            if is_run and name not in LONG_SCRIPTS:
                run_script([script, *options, *SMALL.get(name, "").split()], monkeypatch)
        case ["bash", script, _]:
            assert (ROOT / script).is_file(), script  # it takes minutes, and has tests of its own
        case ["make", *targets]:
            check_make(targets)
        case ["pip", "install", *packages]:
            check_pip(packages)
        case ["printf", text, ">", path]:
            if is_run:
                subprocess.run(["bash", "-c", f"printf '{text}' > {path}"], check=True)
        case _:
            raise AssertionError(f"nobody knows how to run {words}")


def do_block(block, namespace, monkeypatch, *, is_run):
    """Runs a block; or looks whether its options are known, and its imports work."""
    if block.language == "bash":
        for words in block.commands:
            do_command(words, monkeypatch, is_run=is_run)
    elif block.language == "python":
        tree = ast.parse(block.code)
        if not is_run:
            tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(tree, str(block), "exec"), namespace)
    else:
        assert block.language in NOT_RUN, f"nobody knows how to run {block.language!r}"


@every_page
def test_blocks_are_known(page, monkeypatch):
    """Commands, options and imports; quicker than running them."""
    for block in read_blocks(page):
        do_block(block, {}, monkeypatch, is_run=False)


@needs_model
def test_the_readme_runs(tmp_path, monkeypatch):
    run_page(ROOT / "README.md", tmp_path, monkeypatch)


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize("page", other_pages, ids=str)
def test_blocks_run(page, tmp_path, monkeypatch):
    run_page(ROOT / page, tmp_path, monkeypatch)


def run_page(page, tmp_path, monkeypatch):
    """Runs the blocks of a page as its reader would, in a folder like the repository's root."""
    for name in ("model_cards", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in read_blocks(page):
        is_run = all(name in STAND_INS for name in block.needs or ())
        for name in block.needs or ():
            if is_run and not (tmp_path / name).exists():
                STAND_INS[name](tmp_path / name)
        # Each command is a process of its own to its readers, with a precision of its own.
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            do_block(block, namespace, monkeypatch, is_run=is_run)
        except BaseException as error:
            error.add_note(f"In {block}.")
            raise


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("pointillist-hf avatar portrait.jpg -o me --sed 1", "No such option"),
        ("pointillist-hf draw me", "draw"),
        ("python examples/train.py --stage generator --data a --output b --step 3", "not used"),
        ("make coffee", "coffee"),
        ('pip install ".[toast]"', "toast"),
        ("rm -r me", "nobody knows how to run"),
    ],
)
def test_unknown_commands_are_noticed(command, error, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"Needs your files: `a.txt`.\n\n```bash\n{command}\n```\n")
    (block,) = read_blocks(page)
    assert block.needs == ("a.txt",)
    with pytest.raises((Exception, SystemExit), match=error):
        do_block(block, {}, monkeypatch, is_run=False)


# links and names ---------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page):
    for target, anchor in read_links(page):
        assert target.exists(), target
        if anchor:
            assert anchor in read_anchors(target), f"{target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme():
    linked = {target for target, _ in read_links(ROOT / "README.md")}
    assert {*ROOT.glob("docs/*.md")} <= linked


@every_page
def test_names_in_the_prose_exist(page):
    """Of modules and of files; the changelog may speak of what there was."""
    if page.name == "CHANGELOG.md":
        return
    for span in read_code_spans(page):
        parts = span.removeprefix("pointillist_hf.").split(".")
        is_module = re.fullmatch(r"[\w.]+", span) and len(parts) > 1 and parts[-1] != "py"
        if is_module and parts[0] in ROOMS:
            assert is_name(parts), f"{span} in {page}"
        elif re.match(r"(examples|benchmarks|tests|docs)/[\w./]+$", span):
            assert (ROOT / span).exists(), f"{span} in {page}"
        elif re.match(rf"({'|'.join(ROOMS)})/[\w./]*$", span):
            assert (SOURCE / span).exists(), f"{span} in {page}"


def is_name(parts):
    """Whether the parts are a module, or something in one."""
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["pointillist_hf", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        rest = parts[count:]
        return not rest or (len(rest) == 1 and hasattr(found, rest[0]))
    return False


@every_page
def test_options_in_the_prose_exist(page):
    known = {option for c in COMMANDS.values() for p in c.params for option in p.opts}
    known |= {"--help", *(f"--{name}" for name in SyntheticDatasetConfig.__dataclass_fields__)}
    run_options = [f.name for kind in (StageArguments, LoopArguments) for f in fields(kind)]
    known |= {"--config", *(f"--{name}" for name in run_options)}
    for script in [*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py")]:
        known |= {f"--{name}" for name in re.findall(r"^    (\w+): ", script.read_text(), re.M)}
    for span in read_code_spans(page):
        for option in re.findall(r"(?<!\S)--[\w-]+", span):
            assert option in known, f"{option} in {page}"


def test_every_command_is_explained():
    prose = "".join(read_prose(page) for page in PAGES)
    lines = [words for block in blocks if block.language == "bash" for words in block.commands]
    shown = {words[1] for words in lines if words[0] == "pointillist-hf"}
    assert shown == {*COMMANDS}
    for name in COMMANDS:
        assert f"`{name}" in prose, name


def test_the_table_of_floors_is_the_law():
    """Contributing names the rooms of each floor as the test of the floors does."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, flags=re.MULTILINE)
    told = [{name.strip("/") for name in re.findall(r"`([^`]+)`", rooms)} for _, rooms in rows]
    assert [int(number) for number, _ in rows] == [*range(len(FLOORS))]
    assert told == [*FLOORS]


def test_extras_in_the_prose_exist():
    for page in PAGES:
        for package in re.findall(r'pip install (?:-e )?"([^"]+)"', page.read_text()):
            check_pip([package])


# the README --------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_quickstart_is_an_example_too():
    (block,) = (b for b in read_blocks(ROOT / "README.md") if b.language == "python")
    script = (ROOT / "examples" / "quickstart.py").read_text()
    assert script.endswith(f'"""\n\n{block.code}')


def test_every_example_is_listed():
    listed = (ROOT / "examples" / "README.md").read_text()
    for script in (ROOT / "examples").glob("*.py"):
        assert f"`{script.name}`" in listed, script.name


def test_citation_names_the_version():
    version = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert version[1] == pointillist_hf.__version__

# SPDX-License-Identifier: Apache-2.0
"""The files of a Space fit the package, and what the Hub asks of them."""

import ast
import configparser
import re
from pathlib import Path

from huggingface_hub import SpaceCard

from pointillist_hf.default_model import MODEL_ID

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"
# As the Hub lists them.
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def read_card():
    return SpaceCard.load(SPACE / "README.md").data


def test_the_card_is_one_of_a_space():
    card = read_card()
    assert (card.sdk, card.app_file, card.license) == ("gradio", "app.py", "apache-2.0")
    assert {card.colorFrom, card.colorTo} <= COLORS
    assert len(card.short_description) <= 60
    assert card.models == [MODEL_ID]


def test_the_versions_are_those_of_the_tests():
    versions = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert read_card().sdk_version == versions["gradio"]


def test_it_installs_the_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (requirement,) = (SPACE / "requirements.txt").read_text().split()
    name, extra = re.fullmatch(r"([\w-]+)\[(\w+)\]", requirement).groups()
    assert name == setup["metadata"]["name"]
    assert "gradio" in setup["options.extras_require"][extra]


def test_the_script_serves_only_when_it_is_run():
    """A worker imports the script again; without a guard each would start another app."""
    tree = ast.parse((ROOT / "examples" / "app.py").read_text())
    calls = [node for node in tree.body if isinstance(node, ast.Expr) and node.lineno > 3]
    assert calls == []
    (guard,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(guard.test) == "__name__ == '__main__'"

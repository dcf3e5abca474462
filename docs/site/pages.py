# SPDX-License-Identifier: Apache-2.0
"""The pages of the site: those of the repository, with links that lead within the site.

A hook of mkdocs. Pages outside of docs/ are added under names of their own, files that pages link
to come along, and the reference is made of the package's public names.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
# Where a page of the repository stands in the site; those in docs/ keep their names.
OTHER_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "model_cards/pointillist-tiny/README.md": "pointillist-tiny.md",
    "examples/from_photograph_to_page.ipynb": "notebook.md",
}
FILES = "files/"  # of the repository, that are no pages
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)
REFERENCE = """# Reference

What `import pointillist_hf` offers: first what everybody needs, then the parts in the order of the
data flow.
"""
NEEDED_FIRST = ("AvatarPipeline", "AvatarPipelineOutput", "Avatar")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All that the site holds."""
    for source, place in OTHER_PAGES.items():
        files.append(File.generated(config, place, content=read_page(source)))
    files.append(File.generated(config, "reference.md", content=build_reference()))
    sources = [*OTHER_PAGES, *(f"{DOCS}{path.name}" for path in (ROOT / DOCS).glob("*.md"))]
    linked = {target for source in sources for target in find_files(source)}
    for target in sorted(linked):
        path = str(ROOT / target)
        files.append(File.generated(config, FILES + target, abs_src_path=path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page whose links lead within the site."""
    sources = {place: source for source, place in OTHER_PAGES.items()}
    source = sources.get(page.file.src_uri, DOCS + page.file.src_uri)
    return map_prose(markdown, lambda text: LINK.sub(lambda m: lead(m[1], source), text))


def map_prose(markdown: str, change) -> str:  # noqa: ANN001
    """A page with all but its blocks of code changed."""
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def lead(link: str, source: str) -> str:
    """The link of a page of the repository, as it is in the site."""
    if is_foreign(link):
        return link
    path, hash_sign, anchor = link.partition("#")
    return place_of(resolve(path, source)) + hash_sign + anchor


def is_foreign(link: str) -> bool:
    """Whether it leads out of the repository, or within the page."""
    return link.startswith("#") or re.match(r"[a-z]+:", link) is not None


def resolve(path: str, source: str) -> str:
    """A path that a page names, seen from the root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def place_of(target: str) -> str:
    """Where something of the repository stands in the site."""
    if target in OTHER_PAGES:
        return OTHER_PAGES[target]
    return target.removeprefix(DOCS) if target.startswith(DOCS) else FILES + target


def find_files(source: str) -> set[str]:
    """What a page links to that is neither a page nor in docs/."""
    prose = FENCE.sub("", read_page(source))
    paths = {m.partition("#")[0] for m in LINK.findall(prose) if not is_foreign(m)}
    targets = {resolve(path, source) for path in paths}
    return {t for t in targets if t not in OTHER_PAGES and not t.startswith(DOCS)}


def read_page(source: str) -> str:
    """The text of a page; of a notebook, what it says and shows."""
    text = (ROOT / source).read_text("utf-8")
    return show_notebook(text) if source.endswith(".ipynb") else FRONT_MATTER.sub("", text)


def show_notebook(text: str) -> str:
    """A notebook as a page: its words, its code, and the pictures it has drawn."""
    parts = []
    for cell in json.loads(text)["cells"]:
        body = "".join(cell["source"])
        parts.append(body if cell["cell_type"] == "markdown" else f"```python\n{body}\n```")
        for output in cell.get("outputs", ()):
            parts.append(show_output(output))
    return "\n\n".join(parts)


def show_output(output: dict) -> str:
    """What a cell has printed or drawn."""
    data = output.get("data", {})
    for kind in ("image/jpeg", "image/png"):
        if kind in data:
            return f'<img alt="" src="data:{kind};base64,{"".join(data[kind]).strip()}">'
    words = "".join(output.get("text", data.get("text/plain", ())))
    return f"```text\n{words.rstrip()}\n```" if words else ""


def build_reference() -> str:
    """A page with the docstrings of the public names."""
    tree = ast.parse((ROOT / "src" / "pointillist_hf" / "__init__.py").read_text("utf-8"))
    (homes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    )
    names = [*NEEDED_FIRST, *(name for name in homes if name not in NEEDED_FIRST)]
    return "\n\n".join([REFERENCE, *(f"::: pointillist_hf.{homes[name]}.{name}" for name in names)])

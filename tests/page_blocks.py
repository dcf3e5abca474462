# SPDX-License-Identifier: Apache-2.0
"""The blocks of code of a page of the documentation, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "model_cards/*/*.md")
    for path in ROOT.glob(pattern)
)
MARK = "Needs your files:"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code, as a reader sees it."""

    page: Path
    line: int
    language: str
    code: str
    needs: tuple[str, ...] | None  # files that a reader has to bring; None without the mark

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell block."""
        code = self.code.replace("\\\n", " ")  # a line may go on in the next one
        lines = (shlex.split(line, comments=True) for line in code.splitlines())
        return [words for words in lines if words]


def read_blocks(page):
    """All blocks of a page, in their order."""
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text[: match.start()].count("\n") + 1,
            language=match[1],
            code=match[2],
            needs=_read_mark(text[: match.start()]),
        )
        for match in FENCE.finditer(text)
    ]


def _read_mark(before):
    """The files that the paragraph above a block names, if it is the mark."""
    paragraph = before.rstrip().rsplit("\n\n", 1)[-1]
    return tuple(re.findall(r"`([^`]+)`", paragraph)) if paragraph.startswith(MARK) else None


def read_prose(page):
    """A page without its blocks."""
    return FENCE.sub("", page.read_text())


def read_anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", read_prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read_links(page):
    """(file, anchor or "") of each link of a page to a place in the repository."""
    for target in re.findall(r"\]\(([^)]+)\)", read_prose(page)):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def read_code_spans(page):
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", read_prose(page))

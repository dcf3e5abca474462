# SPDX-License-Identifier: Apache-2.0
"""The results as one web page with pictures side by side; it opens from disk."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..exporters.atomic_file import write_atomically
from .manifest import TASKS, Item, Manifest
from .renders import load_render
from .tables import TASK_TITLES

PAGE_FILE, PICTURES = "index.html", "pictures"
THUMBNAIL = 256  # pixels
MAX_ROWS = 8  # of pictures, for each task
EXPLANATIONS = {
    "self": "A system is shown the source, and makes a picture of the person in the pose, with the "
    "expression and by the camera of the target, another picture of the same person.",
    "cross": "A system is shown the source, and makes a picture of this person with the pose and "
    "expression of the driver, who is somebody else.",
}


GROUPS = {**TASK_TITLES, "speed": "Speed and size"}


@dataclass(frozen=True)
class Column:
    """The pictures of a row of the tables, which are a column of the page."""

    files: Mapping[str, Path]  # by item
    captions: Mapping[str, str]  # likewise


@dataclass(frozen=True)
class Section:
    """A heading with Markdown tables and sentences under it."""

    title: str
    text: str


def write_report(
    output: Path,
    benchmark: Path,
    manifest: Manifest,
    columns: Mapping[str, Column],
    sections: Sequence[Section],
) -> None:
    """Writes index.html and the small pictures it shows.

    Args:
        output: The folder.
        benchmark: Folder of the benchmark.
        manifest: Its manifest.
        columns: Pictures by the heading of their column.
        sections: The first one stands above the pictures, the others beneath.
    """
    parts = [f"<h2>{html.escape(s.title)}</h2>\n{to_html(s.text)}" for s in sections]
    pictures = []
    for task in TASKS:
        items = choose_items(manifest.of_task(task))
        if items:
            pictures.append(f"<h2>{TASK_TITLES[task]}, pictures</h2>")
            pictures.append(f'<p class="note">{html.escape(EXPLANATIONS[task])}</p>')
            pictures.append(_picture_table(output, benchmark, manifest, columns, items))
    parts[1:1] = pictures
    title = f"Head avatars on {manifest.dataset}"
    style = files(__package__).joinpath("report/page.css").read_text("utf-8")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{_describe(manifest)}\n" + "\n".join(parts) + "</body>"
        "</html>\n"
    )
    write_atomically(output / PAGE_FILE, lambda unfinished: unfinished.write_text(page, "utf-8"))


def choose_items(items: Sequence[Item]) -> list[Item]:
    """A few items, as many people as possible: first one of each person, then a second one."""
    by_person: dict[str, list[Item]] = {}
    for item in items:
        by_person.setdefault(item.identity, []).append(item)
    # Not the first, which is often the pose of rest; another one for each person.
    turned = [
        one[(i * 5 + 1) % len(one) :] + one[: (i * 5 + 1) % len(one)]
        for i, one in enumerate(by_person.values())
    ]
    longest = max(map(len, turned), default=0)
    rounds = [one[i] for i in range(longest) for one in turned if i < len(one)]
    return rounds[:MAX_ROWS]


def to_html(text: str) -> str:
    """Our own Markdown: tables with bold and italics in cells, lists, paragraphs.

    A list under a sentence that ends with a colon is folded.
    """
    out: list[str] = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            out.append(_table(lines))
        elif lines[0].startswith("- "):
            rows = "".join(f"<li>{html.escape(line[2:])}</li>" for line in lines)
            listed = f'<ul class="note">{rows}</ul>'
            if out and out[-1].endswith(":</p>"):
                summary = out.pop().removeprefix('<p class="note">').removesuffix(":</p>")
                listed = f"<details><summary>{summary}</summary>{listed}</details>"
            out.append(listed)
        else:
            out.append(f'<p class="note">{html.escape(" ".join(lines))}</p>')
    return "\n".join(out)


def _table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_inline(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for name, *cells in rows[2:]
    )
    return f'<div class="scroll"><table>{_head(rows[0])}\n{body}</table></div>'


def _head(titles: Sequence[str]) -> str:
    """The heading; titles that begin with the name of a group stand under its title."""
    groups = [next((g for g in GROUPS if t.startswith(f"{g} ")), "") for t in titles]
    over = ""
    for group, members in groupby(groups):
        count = len([*members])
        over += f'<th colspan="{count}" class="group">{GROUPS.get(group, "")}</th>'
    shown = [t.removeprefix(f"{g} ") if g else t for t, g in zip(titles, groups, strict=True)]
    under = "".join(f"<th>{_inline(title)}</th>" for title in shown)
    return (f"<tr>{over}</tr>\n" if any(groups) else "") + f"<tr>{under}</tr>"


def _inline(text: str) -> str:
    escaped = html.escape(text)
    if escaped.startswith("n/a"):
        # The file that is needed stands in a note under the table.
        return f'<span class="absent" title="{escaped}">n/a</span>'
    for mark, tag in (("**", "b"), ("_", "i")):
        inner = escaped.removeprefix(mark)
        if escaped.startswith(mark) and mark in inner:
            marked, _, rest = inner.partition(mark)
            return f"<{tag}>{marked}</{tag}>" + _small(rest)
    number, gap, rest = escaped.partition(" [")
    return number + _small(gap + rest)


def _small(rest: str) -> str:
    """What follows a number: its interval and what was missed, a line each."""
    if not rest.startswith((" [", " (")):
        return rest
    interval, _, missed = rest.strip().partition("(")
    lines = [interval.strip(), f"({missed}" if missed else ""]
    return " ".join(f"<small>{line}</small>" for line in lines if line).join((" ", ""))


def _describe(manifest: Manifest) -> str:
    count = {task: len(manifest.of_task(task)) for task in TASKS}
    driver = f", all driven by {manifest.driver}" if manifest.driver else ""
    return (
        f'<p class="note">{len(manifest.sources)} people, one source picture each; '
        f"{count['self']} pictures of self reenactment, {count['cross']} of cross "
        f"reenactment{html.escape(driver)}; {manifest.image_size} x {manifest.image_size} pixels. "
        f"Protocol <code>{manifest.sha256[:16]}</code>: figures of another protocol are not "
        "comparable. All figures, faults and versions are in "
        '<a href="results.json">results.json</a>, these tables in '
        '<a href="results.md">results.md</a>.</p>'
    )


def _picture_table(
    output: Path,
    benchmark: Path,
    manifest: Manifest,
    columns: Mapping[str, Column],
    items: Sequence[Item],
) -> str:
    truth = "target" if items[0].task == "self" else "driver"
    titles = ["", "source", truth, *columns]
    rows = ["<tr>" + "".join(f"<th>{html.escape(t)}</th>" for t in titles) + "</tr>"]
    for item in items:
        shown = [
            (f"source-{item.identity}", benchmark / "sources" / f"{item.identity}.png", ""),
            (f"target-{item.target}", benchmark / "targets" / f"{item.target}.png", ""),
        ]
        shown += [
            (f"{n}-{item.item_id}", one.files.get(item.item_id), one.captions.get(item.item_id, ""))
            for n, one in enumerate(columns.values())
        ]
        label = f"{item.identity}, camera {item.camera}, time {item.timestep}"
        cells = [f'<td title="{html.escape(item.item_id)}">{html.escape(label)}</td>']
        cells += [_thumbnail(output, name, file, text, manifest) for name, file, text in shown]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return '<div class="scroll"><table class="pictures">' + "\n".join(rows) + "</table></div>"


def _thumbnail(output: Path, name: str, file: Path | None, caption: str, manifest: Manifest) -> str:
    if file is None:
        return '<td class="absent">no usable render</td>'
    path = output / PICTURES / f"{name}.png"
    image = load_render(file, min(THUMBNAIL, manifest.image_size), manifest.background)
    picture = _to_picture(image)
    write_atomically(path, partial(picture.save, format="PNG"))
    shown = f'<img src="{PICTURES}/{name}.png" alt="{html.escape(name)}" loading="lazy">'
    return f"<td>{shown}<small>{html.escape(caption)}</small></td>"


def _to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray((255 * image).round().byte().numpy())

# SPDX-License-Identifier: Apache-2.0
"""The results as one web page with pictures side by side; it opens from disk."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..exporters.atomic_file import write_atomically
from .manifest import TASKS, Item, Manifest
from .renders import RenderSet, load_render
from .tables import TASK_TITLES

PAGE_FILE, PICTURES = "index.html", "pictures"
THUMBNAIL = 256  # pixels
MAX_ROWS = 12  # of pictures, for each task


@dataclass(frozen=True)
class Section:
    """A heading with Markdown tables and sentences under it."""

    title: str
    text: str


def write_report(
    output: Path,
    benchmark: Path,
    manifest: Manifest,
    renders: Mapping[str, RenderSet],
    sections: Sequence[Section],
) -> None:
    """Writes index.html and the small pictures it shows.

    Args:
        output: The folder.
        benchmark: Folder of the benchmark.
        manifest: Its manifest.
        renders: By the heading of their column.
        sections: What stands above the pictures.
    """
    parts = [f"<h2>{html.escape(s.title)}</h2>\n{to_html(s.text)}" for s in sections]
    for task in TASKS:
        items = choose_items(manifest.of_task(task))
        if items:
            parts.append(f"<h2>{TASK_TITLES[task]}, pictures</h2>")
            parts.append(_picture_table(output, benchmark, manifest, renders, items))
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
    """Our own Markdown: tables with bold and italics in cells, lists, paragraphs."""
    out: list[str] = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            out.append(_table(lines))
        elif lines[0].startswith("- "):
            rows = "".join(f"<li>{html.escape(line[2:])}</li>" for line in lines)
            out.append(f'<ul class="note">{rows}</ul>')
        else:
            out.append(f'<p class="note">{html.escape(" ".join(lines))}</p>')
    return "\n".join(out)


def _table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows[2:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


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


def _small(interval: str) -> str:
    is_interval = interval.startswith(" [")
    return f" <small>{interval[1:]}</small>" if is_interval else interval


def _describe(manifest: Manifest) -> str:
    count = {task: len(manifest.of_task(task)) for task in TASKS}
    driver = f", all driven by {manifest.driver}" if manifest.driver else ""
    return (
        f'<p class="note">{len(manifest.sources)} people, one source picture each; '
        f"{count['self']} pictures of self reenactment, {count['cross']} of cross "
        f"reenactment{html.escape(driver)}; {manifest.image_size} x {manifest.image_size} pixels. "
        f"Protocol <code>{manifest.sha256[:16]}</code>: figures of another protocol are not "
        "comparable. Intervals are of 95 %, over people.</p>"
    )


def _picture_table(
    output: Path,
    benchmark: Path,
    manifest: Manifest,
    renders: Mapping[str, RenderSet],
    items: Sequence[Item],
) -> str:
    truth = "target" if items[0].task == "self" else "driver"
    titles = ["", "source", truth, *renders]
    rows = ["<tr>" + "".join(f"<th>{html.escape(t)}</th>" for t in titles) + "</tr>"]
    for item in items:
        files = {
            f"source-{item.identity}": benchmark / "sources" / f"{item.identity}.png",
            f"target-{item.target}": benchmark / "targets" / f"{item.target}.png",
        }
        files |= {
            f"{number}-{item.item_id}": one.files.get(item.item_id)
            for number, one in enumerate(renders.values())
        }
        cells = [f"<td>{html.escape(item.item_id)}</td>"]
        for name, file in files.items():
            cells.append(_thumbnail(output, name, file, manifest))
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return '<div class="scroll"><table class="pictures">' + "\n".join(rows) + "</table></div>"


def _thumbnail(output: Path, name: str, file: Path | None, manifest: Manifest) -> str:
    if file is None:
        return '<td class="absent">no usable render</td>'
    path = output / PICTURES / f"{name}.png"
    image = load_render(file, min(THUMBNAIL, manifest.image_size), manifest.background)
    picture = _to_picture(image)
    write_atomically(path, partial(picture.save, format="PNG"))
    return f'<td><img src="{PICTURES}/{name}.png" alt="{html.escape(name)}" loading="lazy"></td>'


def _to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray((255 * image).round().byte().numpy())

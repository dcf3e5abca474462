# SPDX-License-Identifier: Apache-2.0
"""The app as its visitors meet it: one server, a Chromium, and what is left on the disk."""

import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, needs_browser
from PIL import Image

from pointillist_hf import Avatar
from pointillist_hf.exporters.ply import read_ply

pytest.importorskip("gradio", exc_type=ImportError)

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "examples" / "images" / "astronaut.jpg"
SERVE = "from pointillist_hf.cli import main; main()"
MADE = "!!document.querySelector('#viewer iframe')"
TOAST = "document.querySelector('.toast-body, [data-testid=toast-body]')?.innerText"
PHOTOGRAPH, TAKE = "#photograph input[type=file]", "#take input[type=file]"

pytestmark = [needs_browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the server keeps its files."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(place):
    """Of a server whose avatars take no steps of refinement, and whose uploads are small."""
    options = ["--max-refine-steps", "0", "--max-megabytes", "1", "--time-limit", "300"]
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONUNBUFFERED": "1"}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "app", *options], env=environment, stdout=log, stderr=log
        )
    try:
        yield wait_for_address(place / "log", process)
    finally:
        process.terminate()
        process.wait(120)
    assert not [*place.glob("pointillist-*")]  # the folder of its visitors


def wait_for_address(log, process, seconds=600):
    for _ in range(5 * seconds):
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            return found[0]
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(f"no server after {seconds} s: {log.read_text()}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium"), size=(1280, 1000)) as browser:
        yield browser


def visit(browser, address, photograph=None):
    page = browser.open(address)
    page.wait_for("#make")
    if photograph is not None:
        page.upload(PHOTOGRAPH, photograph)
        page.wait("!!document.querySelector('#photograph img')")
    return page


def rest(page, seconds):
    """Lets the page draw."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        page.browser.listen(0.1)


def folders(place):
    """Those of avatars."""
    return {*place.glob("pointillist-*/avatars/*/avatar.ply")}


def uploads(place, name):
    return [*place.glob(f"pointillist-*/*/{name}")]


def wait_until(is_so, page, seconds=30):
    page.wait(is_so, seconds)


def canvas_of(page):
    """What the viewer shows. [H, W, 3]"""
    page.run("scrollTo(0, 0)")
    x, y, _, height = page.box("#viewer iframe")
    width = page.run_in_frame("document.querySelector('canvas').clientWidth")
    return page.screenshot(clip={"x": x, "y": y, "width": width, "height": height})


def set_slider(page, name, share):
    """Presses a slider of the viewer at a place of its length."""
    slider = f"document.querySelector('#sliders input[name={name}]')"
    page.run_in_frame(f"{slider}.scrollIntoView({{block: 'center'}})")
    box = f"(({{x, y, width, height}}) => [x, y, width, height])({slider}.getBoundingClientRect())"
    x, y, width, height = page.run_in_frame(box)
    left, top, _, _ = page.box("#viewer iframe")
    page.click_at(left + x + share * width, top + y + height / 2)
    page.wait(lambda: abs(page.run_in_frame(f"+{slider}.value") - share) < 0.1)


@pytest.fixture(scope="module")
def made(browser, address):
    """A page with an avatar."""
    page = visit(browser, address, ASTRONAUT)
    page.click("#make")
    page.wait(MADE, 300)
    rest(page, 2)
    return page


def test_a_slider_moves_the_mouth_only(made):
    made.click("#motion label:nth-of-type(2)")  # holds still
    made.wait(lambda: made.run_in_frame("window.page?.motion === null && !page.moved"))
    rest(made, 1)
    still = canvas_of(made)
    assert np.array_equal(canvas_of(made), still)
    set_slider(made, "jawOpen", 0.95)
    made.wait(lambda: made.run_in_frame("!page.moved"))
    rest(made, 1)
    changed = np.abs(canvas_of(made) - still).max(-1) > 0.03
    rows, columns = (np.nonzero(changed)[axis] / changed.shape[axis] for axis in (0, 1))
    assert changed.sum() > 1000
    # Below the eyes, but for single pixels where splats change places.
    assert np.quantile(rows, 0.001) > 0.41
    # The collar and what hangs on it follow the chin a little.
    assert np.quantile(rows, 0.05) > 0.48
    assert np.quantile(rows, 0.98) < 0.85
    left, right = np.quantile(columns, (0.02, 0.98))
    assert 0.25 < left < right < 0.75
    assert not made.errors


def test_nothing_is_asked_of_other_servers(made, address):
    foreign = [
        url for url in made.browser.requests if not url.startswith((address, "data:", "blob:"))
    ]
    assert [url for url in foreign if url not in ("about:srcdoc", "about:blank")] == []


def test_downloads_open(made, tmp_path):
    downloads = made.browser.downloads
    for name in ("avatar.ply", "avatar.zip", "avatar.spz"):
        made.click("#" + name.replace(".", "-"))
        wait_until((downloads / name).is_file, made)
    told = made.run("document.querySelector('#told').innerText")
    count = int(re.match(r"[\d,]+", told)[0].replace(",", ""))
    assert len(read_ply(downloads / "avatar.ply")) == count > 5000
    with zipfile.ZipFile(downloads / "avatar.zip") as archive:
        archive.extractall(tmp_path / "me")
    assert len(Avatar.from_pretrained(tmp_path / "me")) == count


def test_a_recording_plays(made, tmp_path):
    take = tmp_path / "take.csv"
    take.write_text("jawOpen,eyeBlinkLeft\n" + "".join(f"{i / 30},0\n" for i in range(31)))
    made.upload(TAKE, take)
    made.wait("document.querySelector('#told').innerText.includes('frames of your recording')", 90)
    made.wait(lambda: made.run_in_frame("window.page?.motion?.frames.length > 20"))
    broken = tmp_path / "broken.csv"
    broken.write_text("time,weather\n1,rain\n")
    made.click("#take [aria-label=Clear]")
    made.upload(TAKE, broken)
    assert made.wait(TOAST, 60)
    assert made.run_in_frame("page.motion.frames.length") > 20  # the one before


@pytest.mark.parametrize("kind", ["text", "no face"])
def test_a_wrong_file_is_refused_and_harms_nothing(kind, browser, address, tmp_path, made):
    path = tmp_path / "wrong.jpg"
    if kind == "text":
        path.write_text("I am no picture.")
    else:
        Image.new("RGB", (320, 320), (90, 120, 150)).save(path)
    page = visit(browser, address)
    page.upload(PHOTOGRAPH, path)
    page.wait("!!document.querySelector('#photograph img')")
    page.click("#make")
    sentence = page.wait(TOAST, 90)
    assert ("picture" if kind == "text" else "face") in sentence
    page.wait_for("#make")  # it can be tried again
    page.close()


def test_a_huge_file_is_refused(browser, address, tmp_path, place, made):
    path = tmp_path / "huge.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (900, 900, 3), np.uint8)).save(path)
    assert path.stat().st_size > 2**21
    page = visit(browser, address)
    page.upload(PHOTOGRAPH, path)
    assert "size" in page.wait(TOAST, 60)
    assert not uploads(place, "huge.png")
    page.close()


def test_two_visitors_at_once_get_their_own_and_leave_nothing(browser, address, place, tmp_path):
    others = folders(place)
    mirrored = tmp_path / "mirrored.jpg"
    with Image.open(ASTRONAUT) as photograph:
        photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored, quality=90)
    pages = [visit(browser, address, photograph) for photograph in (ASTRONAUT, mirrored)]
    for page in pages:
        page.click("#make")
    for page in pages:
        page.wait(MADE, 400)
    assert len(folders(place) - others) == 2
    sources = [page.run("document.querySelector('#viewer iframe').srcdoc") for page in pages]
    assert sources[0] != sources[1]
    pages[1].close()
    wait_until(lambda: len(folders(place) - others) == 1, pages[0])
    assert not uploads(place, "mirrored.jpg")
    assert uploads(place, "astronaut.jpg")  # of the other visitor, and of the page
    pages[0].click("#avatar-splat")
    wait_until((browser.downloads / "avatar.splat").is_file, pages[0])
    pages[0].close()
    end = time.monotonic() + 30
    while folders(place) != others and time.monotonic() < end:
        browser.listen(0.1)
    assert folders(place) == others

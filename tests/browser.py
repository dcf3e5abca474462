# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that tests drive like a visitor: clicks, files, downloads, screenshots.

It speaks the DevTools protocol over two pipes, so nothing but the browser itself is needed.

    with Browser(folder) as browser:
        page = browser.open("http://127.0.0.1:7860")
        page.click("#make")
"""

import base64
import io
import json
import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
OPTIONS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--hide-scrollbars --force-device-scale-factor=1 --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
)


class Browser:
    """The process, and the pipes to it.

    Args:
        folder: For its profile and for downloads.
        size: Width and height of its window.
    """

    def __init__(self, folder, size=(1280, 900)):
        self.folder, self.size = Path(folder), size
        self.downloads = self.folder / "downloads"
        self.pages, self._ids, self._answers, self._rest = {}, 0, {}, b""
        self.requests = []  # addresses of all that was asked for

    def __enter__(self):
        self.downloads.mkdir(parents=True, exist_ok=True)
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()

        def connect():  # to where the browser expects the pipes
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        width, height = self.size
        self.process = subprocess.Popen(
            [CHROMIUM, *OPTIONS.split(), f"--user-data-dir={self.folder}/profile",
             f"--window-size={width},{height}", "about:blank"],
            preexec_fn=connect, pass_fds=(3, 4), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.send("Browser.setDownloadBehavior", **where)
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, address):
        """A page of its own visitor: nothing is shared with the others."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.send("Browser.setDownloadBehavior", browserContextId=context, **where)
        width, height = self.size
        new = {"url": "about:blank", "browserContextId": context, "width": width, "height": height}
        target = self.send("Target.createTarget", **new)["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, target, attached["sessionId"])
        self.pages[page.session] = page
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True
        )
        page.send("Page.navigate", url=address)
        return page

    def send(self, method, session=None, **params):
        self._ids += 1
        message = {"id": self._ids, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        wanted, end = self._ids, time.monotonic() + 60
        while wanted not in self._answers:
            assert time.monotonic() < end, f"no answer to {method}"
            self.listen(1.0)
        answer = self._answers.pop(wanted)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def listen(self, seconds):
        """Takes in what the browser says within the time."""
        ready, _, _ = select.select([self._from], [], [], seconds)
        if not ready:
            return
        *messages, self._rest = (self._rest + os.read(self._from, 2**20)).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"], message.get("sessionId"))

    def _note(self, method, params, session):
        page = self.pages.get(session)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Target.attachedToTarget" and page is not None:
            page.frames[params["targetInfo"]["targetId"]] = params["sessionId"]
            self.pages[params["sessionId"]] = page
        elif method == "Target.detachedFromTarget" and page is not None:
            page.frames = {t: s for t, s in page.frames.items() if s != params["sessionId"]}
        elif method == "Runtime.exceptionThrown" and page is not None:
            page.errors.append(params["exceptionDetails"]["exception"].get("description", "?"))


class Page:
    """A tab."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.frames = {}  # session by target, of frames with a process of their own
        self.errors = []  # of scripts

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def run(self, code, session=None):
        """The value of an expression in the page, or in a frame of it."""
        options = {"expression": code, "returnByValue": True, "awaitPromise": True}
        answer = self.browser.send("Runtime.evaluate", session or self.session, **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def run_in_frame(self, code):
        """The same in the newest frame, once it is there."""
        for _ in range(50):
            self.wait(lambda: self.frames)
            try:
                return self.run(code, list(self.frames.values())[-1])
            except RuntimeError as error:
                if not re.search("navigated|closed|not found|Cannot find", str(error)):
                    raise
                self.browser.listen(0.2)  # another one takes its place
        raise AssertionError(f"no frame stayed for {code}")

    def wait(self, is_there, seconds=60):
        """Waits until an expression, or a function, is true. -> its value"""
        end = time.monotonic() + seconds
        while True:
            value = self.run(is_there) if isinstance(is_there, str) else is_there()
            if value:
                return value
            assert time.monotonic() < end, f"waited {seconds} s for {is_there}"
            self.browser.listen(0.1)

    def wait_for(self, selector, seconds=60):
        """Waits until an element can be seen."""
        self.wait(f"!!document.querySelector({selector!r})?.getClientRects().length", seconds)

    def click(self, selector):
        """Clicks into the middle of an element."""
        self.wait_for(selector)
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        x, y, width, height = self.box(selector)
        self.click_at(x + width / 2, y + height / 2)

    def box(self, selector):
        """Left, top, width and height of an element, pixels."""
        rectangle = f"document.querySelector({selector!r}).getBoundingClientRect()"
        return self.run(f"(({{x, y, width, height}}) => [x, y, width, height])({rectangle})")

    def click_at(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def upload(self, selector, path):
        """Chooses a file in an input."""
        self.wait(f"!!document.querySelector({selector!r})")
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path=None, clip=None):
        """What can be seen. [H, W, 3] in [0, 1]"""
        options = {} if clip is None else {"clip": {**clip, "scale": 1}}
        data = base64.b64decode(self.send("Page.captureScreenshot", **options)["data"])
        if path is not None:
            Path(path).write_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB")) / 255

    def close(self):
        self.browser.send("Target.closeTarget", targetId=self.target)

"""A headless Chromium that a test drives by its DevTools protocol over two pipes: nothing to install but the browser itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# The browser reads commands from descriptor 3 and answers on 4. Both pipes go out of the way first: they may be 3 or 4 themselves.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
    os.close(end)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str:
    """The browser: RSPNET_TEST_CHROMIUM, or one on the PATH. Skips where there is none, and fails where one is promised."""
    promised = os.environ.get("RSPNET_TEST_CHROMIUM")
    found = promised or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)} is on the PATH, and RSPNET_TEST_CHROMIUM is not set")
    return found


class Page:
    """A tab. requests: addresses it asked for; errors: what its console and its scripts complained of."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Show a file and wait until all of it is there."""
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + 120
        while not self.loaded:
            assert time.monotonic() < end, "the page did not load"
            self._event(self._receive())

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A real click into the middle of the first element that is found."""
        place = self.move(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)

    def move(self, selector: str, across: float = 0.5, down: float = 0.5) -> dict[str, float]:
        """The pointer goes to a place in the first element that is found (shares of its box), which is brought into view."""
        node = f"document.querySelector({json.dumps(selector)})"
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        place = f"(({{x, y, width, height}}) => [x + width * {across}, y + height * {down}, scrollY])({node}.getBoundingClientRect())"
        self.evaluate(f"{node}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        # Sections are laid out as they come into view, which moves and scrolls the others: again until all stands still.
        for _ in range(50):
            self.evaluate(frames)
            x, y, _ = before = self.evaluate(place)
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            self.evaluate(frames)
            if self.evaluate(place) == before:
                return {"x": x, "y": y}
        raise AssertionError(f"{selector} does not stand still")

    def choose(self, selector: str, label: str) -> None:
        """Another option of a select, by the arrow keys, as from a keyboard."""
        box = f"document.querySelector({json.dumps(selector)})"
        names = self.evaluate(f"[...{box}.options].map((option) => option.label)")
        document = self.call("DOM.getDocument", depth=0)["root"]["nodeId"]
        self.call("DOM.focus", nodeId=self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"])
        steps = names.index(label) - self.evaluate(f"{box}.selectedIndex")
        key, code = ("ArrowDown", 40) if steps > 0 else ("ArrowUp", 38)
        for _ in range(abs(steps)):
            for kind in ("rawKeyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        assert self.evaluate(f"{box}.selectedOptions[0].label") == label, "the arrow keys chose it"

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size and the user's colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path: Path) -> None:
        """A picture of what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._event(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._from, 2**20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _event(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.errors.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(parameters["entry"]))
        elif method == "Page.loadEventFired":
            self.loaded = True


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A tab of a fresh browser that keeps its files in `profile`; skips where there is no browser."""
    program = chromium()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"]
    read_command, write_command = os.pipe()
    read_answer, write_answer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(read_command), str(write_answer), program, *flags, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(read_command, write_answer),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_command)
    os.close(write_answer)
    try:
        yield Page(write_command, read_answer)
    finally:
        os.close(write_command)
        os.close(read_answer)
        try:
            process.wait(timeout=10)  # it ends with its pipe
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

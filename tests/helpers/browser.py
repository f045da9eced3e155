"""A headless Chromium, steered over a pipe: what a reader does with a page, without a driver."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome")
     if (found := shutil.which(name))), None
)  # fmt: skip
#: A browser that does not answer for so long (s) has failed.
PATIENCE = 120.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--remote-debugging-pipe", "--hide-scrollbars"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic", "--mute-audio"),
)


class Browser:
    """One page of a browser; use it in a `with`."""

    def __init__(self, *flags: str, size: tuple[int, int] = (1200, 900)) -> None:
        self.folder = tempfile.mkdtemp(prefix="qsm-browser-")
        self.requests: list[str] = []
        self.errors: list[str] = []
        ours, theirs = os.pipe(), os.pipe()  # the browser reads 3 and writes 4
        command = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "browser", str(PROGRAM), *_FLAGS, *flags, "about:blank",
             f"--user-data-dir={self.folder}", f"--window-size={size[0]},{size[1]}"],
            pass_fds=(ours[0], theirs[1]), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = ours[1], theirs[0]
        self._waiting, self._number, self._session = b"", 0, ""
        try:
            pages = self("Target.getTargets")["targetInfos"]
            target = next(page["targetId"] for page in pages if page["type"] == "page")
            attached = self("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for part in ("Page", "Network", "Runtime"):
                self(f"{part}.enable")
        except (OSError, RuntimeError, StopIteration) as exc:
            self.close()
            raise RuntimeError(f"it does not start ({exc})") from exc

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its result."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return dict(said["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            if not select.select([self._from], [], [], PATIENCE)[0]:
                raise RuntimeError("the browser does not answer")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._waiting += read
        line, _, self._waiting = self._waiting.partition(b"\0")
        said = dict(json.loads(line))
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(said["params"]["request"]["url"])
        if said.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["params"]["exceptionDetails"])[:1500])
        return said

    def open(self, path: Path) -> None:
        """Show a page; returns when it has loaded."""
        self("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:800])
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60.0) -> Any:
        """Wait until the expression is true; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.03)
        raise TimeoutError(f"never true: {script}")

    def reload(self) -> None:
        """Load the page anew with what it has stored.

        The store is handed over: on a busy machine the browser loses it with the page, in a third
        of reloads of a page without a script of ours.
        """
        kept = self.run("JSON.stringify(localStorage)")
        source = f"Object.entries({kept}).forEach(e => localStorage.setItem(e[0], e[1]))"
        self("Page.addScriptToEvaluateOnNewDocument", source=source)
        self.run("window.before = true")
        self("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def text(self, selector: str) -> str:
        """The text of the first element that the selector finds."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Press a button."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def key(self, name: str) -> None:
        """Press a key where the focus is."""
        code = {"key": name, "text": name} if len(name) == 1 else {"key": name, "code": name}
        self("Input.dispatchKeyEvent", type="keyDown", **code)
        self("Input.dispatchKeyEvent", type="keyUp", key=name)

    def mouse(self, kind: str, x: float, y: float, button: str = "none", **more: Any) -> None:
        """`kind` is mousePressed, mouseMoved, mouseReleased or mouseWheel, in pixels."""
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1, **more)

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what is seen as PNG."""
        found = self("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def why_not() -> str:
    """Why there is no browser here, empty where one starts and runs a script."""
    if PROGRAM is None:
        return "no chromium here (apt-get install chromium)"
    try:
        with Browser() as found:
            return "" if found.run("1 + 1") == 2 else "chromium runs no script here"
    except (OSError, RuntimeError) as exc:
        return f"chromium does not run here: {exc}"

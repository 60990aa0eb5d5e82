"""A headless Chromium driven over its DevTools protocol: enough to fill in a form and look."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

_START_SECONDS = 120.0
_WAIT_SECONDS = 120.0


def chromium() -> str | None:
    """The browser's path, if this machine has one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page of a headless browser with a profile of its own. A context manager."""

    def __init__(self, width: int = 1400, height: int = 1000) -> None:
        self._profile = tempfile.mkdtemp(prefix="foundry-ui-")
        self._process = subprocess.Popen(
            [
                chromium() or "chromium",
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        # Pages carry pictures as data: no limit on a message.
        self._socket = connect(self._page_url(), max_size=None)
        self._call("Page.enable")
        self.resize(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete' && !!document.body")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page; promises are awaited."""
        found = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = _WAIT_SECONDS) -> Any:
        """The expression's value as soon as it is truthy; TimeoutError with the page's text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                value = self.run(script)
            except RuntimeError as error:
                if "navigated" not in str(error):  # the page went on by itself meanwhile
                    raise
                value = None
            if value:
                return value
            time.sleep(0.2)
        text = self.run("document.body.innerText")
        raise TimeoutError(f"never came true: {script}\nthe page says:\n{text[:2000]}")

    def click(self, element: str) -> None:
        """A real click into the middle of the element that a JavaScript expression finds."""
        self.wait(f"!!({element})")
        centre = (
            f"(() => {{ const e = {element};"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        x, y = self.run(centre)
        time.sleep(0.2)
        while (moved := self.run(centre)) != [x, y]:  # the page is still being laid out
            x, y = moved
            time.sleep(0.2)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self._call("Input.insertText", text=text)

    def press(self, key: str, *commands: str) -> None:
        """One key on what has the focus; `commands` are editing commands such as selectAll."""
        common = {"key": key, "windowsVirtualKeyCode": ord(key.upper()) if len(key) == 1 else 0}
        text = {} if commands else {"text": key}
        self._call(
            "Input.dispatchKeyEvent", type="keyDown", **common, **text, commands=list(commands)
        )
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def replace(self, element: str, text: str) -> None:
        """Types over what a field holds."""
        self.click(element)
        self.press("a", "selectAll")
        self.type(text)

    def key(self, name: str) -> None:
        """Tab or Enter, as a person without a mouse presses them."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}[name]
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        down = "keyDown" if text else "rawKeyDown"
        self._call("Input.dispatchKeyEvent", type=down, text=text, **common)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int) -> None:
        """Of the page, in its pixels."""
        size = {"width": width, "height": height}
        self._call("Emulation.setDeviceMetricsOverride", deviceScaleFactor=1, mobile=False, **size)

    def scheme(self, name: str) -> None:
        """What the reader prefers: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> Path:
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))
        return path

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_WAIT_SECONDS))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _page_url(self) -> str:
        """The DevTools address of the first page, once the browser is up."""
        import httpx

        port_file = Path(self._profile) / "DevToolsActivePort"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if port_file.exists() and port_file.read_text().strip():
                port = port_file.read_text().split()[0]
                pages = httpx.get(f"http://127.0.0.1:{port}/json/list").json()
                found = [p for p in pages if p["type"] == "page"]
                if found:
                    return found[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        self._process.kill()
        raise TimeoutError("chromium did not start")

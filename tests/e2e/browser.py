"""Headless Chromium, driven over the plain WebDriver protocol (W3C)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

PROGRAMS = ("chromium", "chromedriver")


@contextmanager
def chromedriver() -> Iterator[httpx.Client]:
    """A driver process on a free port, as a client of it."""
    process, port = _start_driver()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.communicate()


def _start_driver(attempts: int = 3) -> tuple[subprocess.Popen[str], str]:
    """It ends by itself if another process takes the port that it has chosen."""
    for _ in range(attempts):
        process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started = (re.search(r"started successfully on port (\d+)", line) for line in process.stdout)
        if port := next((match[1] for match in started if match), None):
            return process, port
        process.communicate()
    raise AssertionError("chromedriver does not start")


class Browser:
    """One session with a profile of its own, and the few commands that the tests need."""

    KEYS = {
        "down": "\ue015",
        "left": "\ue012",
        "right": "\ue014",
        "enter": "\ue007",
        "tab": "\ue004",
        "space": " ",
        "escape": "\ue00c",
        "backspace": "\ue003",
    }

    def __init__(self, driver: httpx.Client, profile: Path) -> None:
        self._driver = driver
        flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update"]
        flags += ["disable-background-networking", "disable-sync", "window-size=1400,1000", f"user-data-dir={profile}"]
        chrome = {"binary": shutil.which("chromium"), "args": [f"--{flag}" for flag in flags]}
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._scripts: list[str] = []  # of `before_page`
        self._session = ""
        self._session = "/session/" + self._post("/session", capabilities={"alwaysMatch": wanted})["sessionId"]

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._driver.post(self._session + path, json=body).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def before_page(self, source: str) -> None:
        """Run a script in every page that is opened until `reset`, before the page's own."""
        self._scripts.append(self.cdp("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"])

    def reset(self) -> None:
        """As a new session would be: no page, nothing stored, no script, size or scheme of a test before, no logs."""
        for identifier in self._scripts:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)
        self._scripts.clear()
        origin = self.run("return location.origin")
        if origin.startswith("http"):
            self.cdp("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
            self.run("sessionStorage.clear()")  # which the command leaves
        self.open("about:blank")
        self.cdp("Emulation.clearDeviceMetricsOverride")
        self.cdp("Emulation.setEmulatedMedia", features=[])
        self.errors()
        self.requested()

    def close(self) -> None:
        self._driver.delete(self._session)

    def open(self, url: str) -> None:
        self._post("/url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        return self._post("/execute/sync", script=script, args=list(args))

    def cdp(self, command: str, **params: Any) -> Any:
        return self._post("/goog/cdp/execute", cmd=command, params=params)

    def errors(self) -> list[str]:
        """What the console of the browser complains of, CSP violations included; not that a request was refused."""
        log = [line["message"] for line in self._post("/se/log", type="browser") if line["level"] == "SEVERE"]
        return [message for message in log if "the server responded" not in message]

    def requested(self) -> list[str]:
        """URLs of all requests since the last call."""
        messages = [json.loads(line["message"])["message"] for line in self._post("/se/log", type="performance")]
        sent = [one for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def size(self, width: int, height: int = 900, phone: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the reader's system would ask for."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self) -> bytes:
        """What is seen of the page, as PNG."""
        return base64.b64decode(self.cdp("Page.captureScreenshot", format="png")["data"])

    def tab_to(self, selector: str, most: int = 80) -> None:
        """Press Tab until what has the focus matches."""
        for _ in range(most):
            self.press("tab")
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return
        raise AssertionError(f"{selector} is not reached by {most} tabs")

    def click(self, selector: str) -> None:
        # To the middle: at the edges something that stays in place may cover it.
        self.run("document.querySelector(arguments[0])?.scrollIntoView({block: 'center'})", selector)
        self._use(selector, "click")

    def type(self, selector: str, text: str) -> None:
        self._use(selector, "value", text=text)

    def _use(self, selector: str, action: str, **body: Any) -> None:
        """The page may replace an element between finding and using it: then the new one is used."""
        for _ in range(5):
            path = f"{self._session}/element/{self._find(selector)}/{action}"
            answer = self._driver.post(path, json=body).json()["value"]
            if not isinstance(answer, dict) or answer.get("error") != "stale element reference":
                break
        assert not (isinstance(answer, dict) and "error" in answer), answer

    def _find(self, selector: str) -> str:
        element: dict[str, str] = self._post("/element", using="css selector", value=selector)
        return next(iter(element.values()))

    def press(self, *keys: str) -> None:
        """Keys go to whatever has the focus, as from a keyboard."""
        strokes = [{"type": kind, "value": self.KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent.trim())"
        found: list[str] = self.run(script, selector)
        return found

    def wait(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        end = time.monotonic() + seconds
        while not (value := what()):
            assert time.monotonic() < end, f"not within {seconds} s; the page says: {self.texts('main')}"
            time.sleep(0.05)
        return value

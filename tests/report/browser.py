"""A headless Chromium, driven over WebDriver's HTTP protocol: what a page really shows, logs and asks the network for."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
READY_S = 60.0
MISSING = "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One tab."""

    def __init__(self, address: str, profile_dir: Path) -> None:
        self._address = address
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile_dir}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{session['sessionId']}"

    def open(self, path: Path, width: int = 1400, height: int = 1000) -> None:
        """Load a file from disk and wait until it says that its scripts have run, if it does; a test notices one that never says it."""
        self._ask("POST", f"{self._session}/window/rect", {"width": width, "height": height})
        self._ask("POST", f"{self._session}/url", {"url": path.as_uri()})
        if b"dataset.ready" in path.read_bytes():
            give_up_s = time.monotonic() + READY_S
            while self.run("return document.documentElement.dataset.ready ?? null") is None and time.monotonic() < give_up_s:
                time.sleep(0.05)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that `script` returns; a promise is waited for."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def console(self) -> list[str]:
        """Warnings and errors of the page since the last call."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for since the last call."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "performance"})
        messages = [json.loads(e["message"])["message"] for e in entries]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [
            url for url in asked if not url.startswith(("chrome://", "chrome-untrusted://", "data:", "blob:"))
        ]  # its own first tab, and what asks nobody

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", f"{self._session}/screenshot")))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._ask("DELETE", self._session)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method == "GET" or method == "DELETE" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as e:
            raise AssertionError(json.load(e)["value"]["message"]) from e


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile, ended with its driver."""
    driver = subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if driver.stdout is None:
            raise AssertionError("the pipe was asked for")
        said = next(line for line in driver.stdout if "successfully on port" in line)
        port = int(said.strip().rstrip(".").rpartition(" ")[2])
        found = Browser(f"http://127.0.0.1:{port}", folder / "profile")
        try:
            yield found
        finally:
            found.close()
    finally:
        driver.terminate()
        driver.wait(10)

"""The process behind a page of `--serve`: no terminal, textual-serve's pipes instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from noodle_tui.terminal import streams as terminal
from noodle_tui.terminal.browser import own_templates
from tests.tui import recordings

ROOT = Path(__file__).resolve().parents[2]


def test_it_paints_the_console_into_its_pipe(tmp_path: Path) -> None:
    path = recordings.write(tmp_path / "r.jsonl", 3, 20)
    env = {**os.environ, "TEXTUAL_DRIVER": terminal.WEB_DRIVER, "COLUMNS": "100", "ROWS": "30", "TERM": "dumb"}
    command = [sys.executable, "-m", "noodle_tui", "--replay", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=env) as process:
        try:
            seen = b""
            while b"THROUGHPUT" not in seen:
                data = os.read(process.stdout.fileno(), 65536)  # type: ignore[union-attr]
                assert data, f"it ended with {process.wait(10)} before it showed anything: {seen[-300:]!r}"
                seen += data
            assert seen.startswith(b"__GANGLION__\n") and "─".encode() in seen, "a page shows Unicode whatever TERM says"
        finally:
            process.kill()


def test_keys_go_to_the_terminal_of_a_page_before_it_is_clicked(tmp_path: Path) -> None:
    source, served = tmp_path / "source", tmp_path / "served"
    source.mkdir()
    served.mkdir()
    font = '<link href="https://fonts.example/mono.css" rel="stylesheet">'
    (source / "app_index.html").write_text(f"<html><head>{font}</head><body><div id='terminal'></div></body></html>")
    (page,) = own_templates(source, served).glob("*.html")
    text = page.read_text()
    assert "https://" not in text
    assert ".xterm-helper-textarea" in text.partition("</div>")[2] and text.index("terminal.focus()") < text.index("</body>")

"""The console in a browser on this machine, through textual-serve: every tab is a console process of its own.

There is no password, so it listens on the loopback address and nowhere else, refuses pages of other sites that a browser here may
have open, and its own pages ask no other machine for anything.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
HOW_TO = "--serve needs the package textual-serve: pip install 'noodlecore[serve]'"
_FOREIGN_LINK = re.compile(r'<link[^>]*href="https?://[^>]*>')


_FOCUS = """<script>
new MutationObserver((_, observer) => {
  const terminal = document.querySelector(".xterm-helper-textarea");
  if (terminal) { observer.disconnect(); terminal.focus(); }
}).observe(document.body, {childList: true, subtree: true});
</script>"""


def serve(port: int, arguments: Sequence[str]) -> int:
    """Serve until interrupted; 2 when the package is missing."""
    try:
        import textual_serve.server
    except ImportError:
        print(HOW_TO, file=sys.stderr)
        return 2
    command = shlex.join([sys.executable, "-m", "noodle_tui", *without_serve(arguments)])
    with tempfile.TemporaryDirectory() as folder:
        templates = own_templates(Path(textual_serve.server.__file__).parent / "templates", Path(folder))
        server = textual_serve.server.Server(command, host=HOST, port=port, title="noodle-console", templates_path=templates)
        make_app = server._make_app

        async def guarded_app() -> Any:
            return _guard(await make_app(), port)

        server._make_app = guarded_app
        server.serve()
    return 0


def _guard(app: Any, port: int) -> Any:
    """Refuse what a page of another site sends: a web socket is open to every origin unless the server looks."""
    from aiohttp import web

    @web.middleware
    async def same_origin(request: Any, handler: Any) -> Any:
        if not is_own(request.headers, port):
            raise web.HTTPForbidden(text=f"open http://{HOST}:{port} itself: other sites may not use this console")
        return await handler(request)

    app.middlewares.append(same_origin)
    return app


def is_own(headers: Mapping[str, str], port: int) -> bool:
    """Whether a request was made to this machine by its name, and by no page but our own."""
    hosts = (f"{HOST}:{port}", f"localhost:{port}")
    origin = headers.get("Origin")
    return headers.get("Host", "") in hosts and (origin is None or origin in [f"http://{host}" for host in hosts])


def own_templates(source: Path, folder: Path) -> Path:
    """The package's pages without links to other hosts: it fetches a font, which a console of one machine must not. Keys go to the
    terminal from the start; the package waits for a click."""
    for page in source.glob("*.html"):
        text = _FOREIGN_LINK.sub("", page.read_text("utf-8"))
        (folder / page.name).write_text(text.replace("</body>", f"{_FOCUS}</body>"), "utf-8")
    return folder


def without_serve(arguments: Sequence[str]) -> list[str]:
    """The same command line for the process behind a tab."""
    kept: list[str] = []
    skip = False
    for i, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument == "--serve":
            skip = i + 1 < len(arguments) and arguments[i + 1].isdecimal()
        elif not argument.startswith("--serve="):
            kept.append(argument)
    return kept

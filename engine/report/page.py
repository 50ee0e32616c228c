"""One self-contained HTML file out of a document, our scripts and Plotly's: it opens from disk and asks no network.

The document is data and stays data: it stands in a JSON block in which no character can end the block, and only the scripts
whose digests the page's own policy names are run. `web/names.js` shows names as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from engine.data.errors import NotSupported
from engine.data.json_text import json_text
from engine.report.names import visible

_HOLE = re.compile(r"\{\{(\w+)\}\}")
_PLOTLY = "package_data/plotly.min.js"


def render_page(body: str, title: str, document: Mapping[str, Any], scripts: Sequence[str]) -> bytes:
    """The page: `body` and `scripts` name files of `web/`; raises NotSupported if Plotly is not installed."""
    code = [plotly_js(), *(_web(name) for name in scripts)]
    parts = {
        "title": html.escape(visible(title)[:200]),
        "policy": _policy(code),
        "css": _web("page.css"),
        "data": safe_json(document),
        "body": _web(body),
        "scripts": "\n".join(f"<script>{c}</script>" for c in code),
    }
    # One pass: what stands in the parts is not looked at again.
    page = _HOLE.sub(lambda m: parts[m[1]], _web("page.html"))
    return page.encode("utf-8", "backslashreplace")


def safe_json(document: Any) -> str:
    """JSON in ASCII that cannot end a script element, open a comment or break a line."""
    text = json_text(document, compact=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def plotly_js() -> str:
    """Plotly's script from the installed package, without importing the package, which would take longer than all else."""
    spec = importlib.util.find_spec("plotly")
    path = Path(spec.origin).parent / _PLOTLY if spec and spec.origin else None
    if path is None or not path.is_file():
        raise NotSupported("the plotly package is not installed here, and the dashboard needs its script: pip install 'noodlecore[report]'")
    return path.read_text(encoding="utf-8")


def _policy(code: Sequence[str]) -> str:
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in code)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'; base-uri 'none'"


def _web(name: str) -> str:
    return resources.files("engine.report").joinpath("web", name).read_text(encoding="utf-8")

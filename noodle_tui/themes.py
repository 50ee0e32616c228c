"""Colour themes: read from the TOML files of the `themes` package, checked, and turned into styles by name.

A theme may change colours only. Attributes (bold, reverse) belong to the style names, because they carry severity for
readers without colour. Terminal colour names are allowed in themes marked `ansi`, `#rrggbb` in the others.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from rich.style import Style
from textual.theme import Theme

from engine.data.errors import InvalidInput
from engine.files import read_document
from engine.folders import settings_path

SECTIONS: dict[str, tuple[str, ...]] = {
    "colors": ("background", "foreground", "dim", "rule", "accent"),
    "state": ("ok", "warn", "error", "lost", "stale"),
    "graph": ("low", "mid", "high"),
}
_ATTRIBUTES = {"warn": "bold", "error": "bold reverse", "lost": "reverse", "stale": "italic", "title": "bold", "high": "bold"}
T = TypeVar("T")
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_ANSI = re.compile(r"default|(bright_)?(black|red|green|yellow|blue|magenta|cyan|white)")
THEMES = "themes"  # the folder among the user's settings
DEFAULT_THEME = "noodle-dark"
MONO_THEME = "mono"


@dataclass(frozen=True)
class Look:
    """One loaded theme: the style of every name that a view may use, and what Textual itself needs."""

    name: str
    dark: bool
    ansi: bool
    colors: Mapping[str, str]  # name to colour, sections merged
    styles: Mapping[str, Style]

    def textual_theme(self) -> Theme:
        """The same colours for the few stock widgets (the input fields)."""
        prefix = "ansi_" if self.ansi else ""
        color = {name: prefix + value for name, value in self.colors.items()}
        variables = {"field-background": color["background"], "field-text": color["foreground"], "field-dim": color["dim"]}
        if self.ansi:
            variables |= {"ansi-background": color["background"], "ansi-foreground": color["foreground"]}
        paper = color["background"]
        return Theme(
            self.name,
            color["accent"],
            foreground=color["foreground"],
            background=paper,
            surface=paper,
            panel=paper,
            dark=self.dark,
            ansi=self.ansi,
            variables=variables,
        )


def theme_names() -> list[str]:
    """Names of all themes, the default first, a user's own last."""
    names = sorted(entry.name.removesuffix(".toml") for entry in files("themes").iterdir() if entry.name.endswith(".toml"))
    shipped = sorted(names, key=lambda name: name != DEFAULT_THEME)
    return [*shipped, *(name for name in _user_files() if name not in shipped)]


def _user_files() -> dict[str, Path]:
    """A user's themes by name; a file may replace a shipped theme of its name."""
    try:
        return {path.stem: path for path in sorted(settings_path(THEMES).glob("*.toml"))}
    except OSError:
        return {}


def theme_file(name: str) -> Path | None:
    """The user's file of a theme; None for one that is shipped."""
    return _user_files().get(name)


def load_theme(name: str) -> Look:
    """Read and check one theme; the error names the file and the key, or lists the themes there are."""
    if (path := theme_file(name)) is not None:
        return replace(parse_theme(str(path), read_document(path, "a theme")), name=name)
    if name not in theme_names():
        raise InvalidInput(f"there is no theme called {name[:80]!r}; the themes are: {', '.join(theme_names())}")
    return parse_theme(f"themes/{name}.toml", files("themes").joinpath(f"{name}.toml").read_text("utf-8"))


def parse_theme(path: str, text: str) -> Look:
    """The theme in a TOML text; `path` is only for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path}: this is not TOML: {error}") from None
    _refuse_unknown(path, data)
    name, dark, ansi = _field(path, data, "name", str), _field(path, data, "dark", bool), _field(path, data, "ansi", bool)
    colors = {key: _color(path, data, section, key, ansi) for section, keys in SECTIONS.items() for key in keys}
    return Look(name, dark, ansi, colors, _styles(colors))


def _refuse_unknown(path: str, data: dict[str, object]) -> None:
    for key, value in data.items():
        if key not in ("name", "dark", "ansi", *SECTIONS):
            raise InvalidInput(f"{path}: unknown key {key!r}; a theme has name, dark, ansi and [{'], ['.join(SECTIONS)}]")
        if isinstance(value, dict):
            for inner in value.keys() - set(SECTIONS.get(key, ())):
                raise InvalidInput(f"{path}: unknown key {key}.{inner}; [{key}] has {', '.join(SECTIONS.get(key, ()))}")


def _field(path: str, data: dict[str, object], key: str, kind: type[T]) -> T:
    value = data.get(key)
    if not isinstance(value, kind):
        raise InvalidInput(f"{path}: {key} must be a {kind.__name__}, not {value!r}")
    return value


def _color(path: str, data: dict[str, object], section: str, key: str, ansi: bool) -> str:
    table = data.get(section)
    value = table.get(key) if isinstance(table, dict) else None
    pattern, example = (_ANSI, "'default' or 'bright_green'") if ansi else (_HEX, "'#7aa2f7'")
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInput(f"{path}: {section}.{key} must be a colour such as {example}, not {value!r}")
    return value


def _styles(colors: Mapping[str, str]) -> dict[str, Style]:
    named = {**colors, "text": colors["foreground"], "title": colors["accent"]}
    del named["background"], named["foreground"]
    paper = colors["background"]
    styles = {name: Style.parse(f"{_ATTRIBUTES.get(name, '')} {color} on {paper}") for name, color in named.items()}
    styles["cursor"] = Style.parse(f"reverse {colors['foreground']} on {paper}")
    return styles | {"bottleneck": Style.parse(f"bold reverse {colors['warn']} on {paper}")}


def contrast(first: str, second: str) -> float:
    """The WCAG contrast ratio of two `#rrggbb` colours, 1 to 21."""
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def choose_look(theme: str | None, environ: Mapping[str, str]) -> Look:
    """The theme asked for; NO_COLOR picks the one without colours. Raises InvalidInput."""
    return load_theme(theme or (MONO_THEME if "NO_COLOR" in environ else DEFAULT_THEME))


def changed_s(path: Path | None) -> float:
    """When a theme's file was saved last; 0 for none."""
    try:
        return path.stat().st_mtime if path is not None else 0.0
    except OSError:
        return 0.0

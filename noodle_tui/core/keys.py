"""Every key of the console as data: its id (for `console.toml`), its keys, what it does, and on which screens.

Lower case looks, capital letters change the cluster. Help, key lines and the command palette are made from this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.data.errors import InvalidInput
from noodle_tui.core.pages import Page

_PLACE = re.compile(r"\{([a-z]+\.[a-z_-]+)\}")
ALL = frozenset(Page)
LISTS = frozenset(Page) - {Page.PROMPT}
_NAMES = {
    "question_mark": "?",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "slash": "/",
    "colon": ":",
    "comma": ",",
    "full_stop": ".",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One binding. `keys` are Textual's names, separated by commas."""

    id: str
    keys: str
    text: str
    pages: frozenset[Page] = ALL
    changes: bool = False  # a capital letter: opens a preview
    effect: bool = False  # needs the app (files, the link, widgets); the others only change what is shown

    @property
    def label(self) -> str:
        """The keys as people know them."""
        return " ".join(_NAMES.get(key, key) for key in self.keys.split(","))


_ON = frozenset
KEYS: tuple[Key, ...] = (
    *(Key(f"screen.{page.value}", str(page.number), f"screen {page.value}", effect=True) for page in Page),
    Key("nav.in", "enter", "open what the cursor is on", effect=True),
    Key("nav.out", "escape", "back, dismiss, clear, stop", effect=True),
    Key("nav.up", "up,k", "up", effect=True),
    Key("nav.down", "down,j", "down", effect=True),
    Key("nav.page_up", "pageup", "a page up", effect=True),
    Key("nav.page_down", "pagedown", "a page down", effect=True),
    Key("nav.home", "home", "first", effect=True),
    Key("nav.end", "end", "last", effect=True),
    Key("nav.panel", "tab", "next panel or screen", effect=True),
    Key("nav.panel_back", "shift+tab", "previous panel or screen", effect=True),
    Key("list.filter", "slash", "filter: w  !w  field:w", LISTS, effect=True),
    Key("list.sort", "o", "sort by the next column", LISTS),
    Key("list.reverse", "O", "reverse the order", LISTS),
    Key("list.mark", "m", "mark a row, for D or X", _ON({Page.NODES, Page.SESSIONS})),
    Key("view.warn", "w", "warnings and worse only", _ON({Page.OVERVIEW, Page.NODES, Page.EVENTS, Page.SESSIONS, Page.LOGS})),
    Key("view.hold", "space", "hold / resume the display", effect=True),
    Key("view.mode", "v", "view: time, layers, memory", _ON({Page.PLAN})),
    Key("view.compare", "c", "compare with another one", _ON({Page.PLAN, Page.WHATIF, Page.PROFILE})),
    Key("view.phase", "b", "phase: prefill, decode", _ON({Page.PROFILE})),
    Key("view.node", "n", "next source, next profile", _ON({Page.LOGS, Page.PROFILE})),
    Key("view.metric", "m", "measure: time, memory, ...", _ON({Page.WHATIF, Page.PROFILE})),
    Key("view.expand", "z", "fold / unfold", _ON({Page.OVERVIEW, Page.PLAN, Page.EVENTS, Page.PROFILE, Page.LOGS})),
    Key("view.kind", "f", "only the next kind of event", _ON({Page.EVENTS})),
    Key("view.span", "s", "graphs: 5 minutes, 1 hour", LISTS - {Page.LOGS}),
    Key("view.newest", "g", "follow the newest", _ON({Page.EVENTS})),
    Key("view.follow", "f", "follow the newest", _ON({Page.LOGS})),
    Key("view.export", "x", "export: json, jsonl, csv", effect=True),
    Key("view.shot", "i", "this screen as a picture", effect=True),
    Key("view.theme", "t", "choose a theme", effect=True),
    Key("time.prev", "comma", "earlier change (or frame)", effect=True),
    Key("time.next", "full_stop", "later change (or frame)", effect=True),
    Key("time.slower", "minus", "replay at half the pace", effect=True),
    Key("time.faster", "plus,equals_sign", "replay at twice the pace", effect=True),
    Key("prompt.write", "p", "write a prompt", effect=True),
    Key("prompt.copy", "f2", "copy the answer", _ON({Page.PROMPT}), effect=True),
    Key("prompt.save", "f3", "save the answer as jsonl", _ON({Page.PROMPT}), effect=True),
    Key("link.retry", "r", "connect again now", effect=True),
    Key("link.next", "l", "the next joined cluster", effect=True),
    Key("action.detail", "e", "what an action said", effect=True),
    Key("app.command", "colon,ctrl+p", "command palette", effect=True),
    Key("app.help", "question_mark,f1", "help of this screen", effect=True),
    Key("app.quit", "q", "quit", effect=True),
    Key("app.interrupt", "ctrl+c,ctrl+q", "quit, even while typing", effect=True),
    Key("app.suspend", "ctrl+z", "suspend; fg comes back", effect=True),
    Key("dialog.yes", "y", "do what a preview says", effect=True),
    Key("cluster.whatif", "S", "compare strategies", changes=True, effect=True),
    Key("cluster.apply", "A", "apply chosen strategy", changes=True, effect=True),
    Key("cluster.rebalance", "R", "plan again", changes=True, effect=True),
    Key("cluster.rollback", "H", "previous plan again", changes=True, effect=True),
    Key("cluster.drain", "D", "drain, undrain, forget a node", changes=True, effect=True),
    Key("cluster.undo", "U", "take back your changes", changes=True, effect=True),
    Key("cluster.acknowledge", "K", "acknowledge warnings", changes=True, effect=True),
    Key("cluster.cancel", "X", "cancel chosen session", changes=True, effect=True),
    Key("cluster.profile", "P", "profile a node, or all", changes=True, effect=True),
    Key("cluster.auto", "M", "auto-adapt off / suggest / auto", changes=True, effect=True),
)
BY_ID: Mapping[str, Key] = {key.id: key for key in KEYS}


def with_keys(chosen: Mapping[str, str]) -> tuple[Key, ...]:
    """The table with a user's own keys; raises InvalidInput for an unknown id (with the nearest) or a key used twice."""
    for key_id in chosen:
        if key_id not in BY_ID:
            raise InvalidInput(f"keys.{key_id}: there is no such key id{nearest(key_id, BY_ID)}")
    table = tuple(
        Key(key.id, chosen.get(key.id, key.keys), key.text, key.pages, key.changes, key.effect) if key.id in chosen else key for key in KEYS
    )
    owner: dict[str, Key] = {}
    for key in table:
        for name in key.keys.split(","):
            other = owner.setdefault(name, key)
            if other is not key and other.pages & key.pages:
                raise InvalidInput(f"keys: {name!r} is used by {other.id} and by {key.id}: give one of them another key")
    return table


def nearest(name: str, known: Mapping[str, object]) -> str:
    """`; did you mean ...?`, if something is near."""
    import difflib  # only for errors: it costs the start 5 ms

    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(known)}"


def key_of(key_id: str, table: Sequence[Key]) -> str:
    """The first key of a binding, as people know it."""
    return next(key.label.split(" ")[0] for key in table if key.id == key_id)


def named(text: str, table: Sequence[Key]) -> str:
    """A text of this program with every `{id of a binding}` replaced by its first key: the one way in which keys get into words."""
    return _PLACE.sub(lambda found: key_of(found[1], table), text)

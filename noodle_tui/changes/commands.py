"""The command line of the console (`:` or ctrl+p): what there is, what fits what was typed, what it means.

Pure: a command becomes an `Order` for the app. Keys and screens are commands too, by their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.data.errors import InvalidInput
from engine.data.status import NodeState
from noodle_tui.core.keys import Key, nearest
from noodle_tui.core.pages import Page
from noodle_tui.state import ConsoleState

MAX_SUGGESTIONS = 10


@dataclass(frozen=True, slots=True)
class Order:
    """A command's name and what was given with it."""

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One line of the palette: what would be typed, and what it does."""

    text: str
    help: str
    complete: bool = True  # enter runs it; false: it still needs an argument


_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("ctx", "HOST:PORT", "connect to another coordinator"),
    ("theme", "NAME", "use a theme"),
    ("rw", "", "allow capital letters to change the cluster"),
    ("ro", "", "forbid them again"),
    ("record", "FILE", "record every frame to a new file; record off ends it"),
    ("export", "json|jsonl|csv [FILE]", "write this screen's list to a file"),
    ("shot", "[FILE]", "write this screen as SVG"),
    ("filter", "TEXT", "filter this screen's list"),
    ("plan", "N", "compare with plan N"),
    ("strategy", "NAME", "preview a strategy"),
    ("drain", "NODE ...", "preview draining nodes"),
    ("undrain", "NODE ...", "preview taking drained nodes in again"),
    ("forget", "NODE", "preview striking a lost node off the list"),
    ("acknowledge", "", "preview calling all warnings seen"),
    ("cancel", "SESSION", "preview cancelling a session"),
    ("rollback", "[N]", "preview the stages of plan N again, or of the one before this"),
    ("adapt", "off|suggest|auto", "preview a mode of adaptation"),
    ("confirm", "ID", "preview what adaptation suggests"),
    ("profile", "FILE", "show a profile"),
    ("system", "[TEXT]", "what the model is told before the conversation; - takes it away"),
    ("new", "", "begin a new conversation; those before are kept"),
    ("conversation", "N", "show conversation N again"),
    ("copy", "", "the last answer, to the terminal's clipboard"),
    ("edit", "[system]", "write the prompt, or what the system says, in $EDITOR"),
    ("seek", "HH:MM:SS", "go to a time of the replay, +60, -60; seek next or prev: a plan change"),
    ("speed", "X", "pace of the replay"),
)


def suggestions(text: str, state: ConsoleState, keys: Sequence[Key], themes: Sequence[str]) -> tuple[Suggestion, ...]:
    """What fits what was typed so far, the likeliest first."""
    found = [s for s in (*_with_arguments(state, themes), *_plain(), *_of_keys(keys)) if _matches(text, s)]
    typed = text.lower().strip()
    if typed:
        found.sort(key=lambda s: (not s.text.startswith(typed), typed not in s.text, len(s.text)))
    return tuple(found[:MAX_SUGGESTIONS])


def parse_command(text: str, keys: Sequence[Key]) -> Order:
    """The order in a typed line; raises InvalidInput with the nearest name."""
    name, _, argument = text.strip().partition(" ")
    name = name.lower()
    known = {command: usage for command, usage, _ in _COMMANDS}
    if name in known:
        if known[name] and not known[name].startswith("[") and not argument.strip():
            raise InvalidInput(f"{name} needs {known[name]}")
        return Order(name, argument.strip())
    if name in list(Page):
        return Order("key", f"screen.{name}")
    by_id = {key.id: key for key in keys}
    if name in by_id:
        return Order("key", name)
    raise InvalidInput(f"there is no command {name[:40]!r}{nearest(name, {**known, **{page.value: 0 for page in Page}})}")


def wall_of(text: str, near_wall_s: float) -> float:
    """`HH:MM[:SS]` of the day that `near_wall_s` lies in, or `+60` / `-60` seconds from it; raises InvalidInput."""
    if text[:1] in "+-" and text[1:].isdecimal():
        return near_wall_s + int(text)
    for form in ("%H:%M:%S", "%H:%M"):
        try:
            parsed = datetime.strptime(text, form)
        except ValueError:
            continue
        day = datetime.fromtimestamp(near_wall_s)
        return datetime.combine(day.date(), parsed.time()).timestamp()
    raise InvalidInput(f"seek {text[:40]!r}: give a time of day as HH:MM:SS, or +60 and -60 for seconds")


def _plain() -> list[Suggestion]:
    commands = [Suggestion(f"{name} {usage}".strip(), text, complete=not usage or usage.startswith("[")) for name, usage, text in _COMMANDS]
    return [*(Suggestion(page.value, f"screen {page.number}") for page in Page), *commands]


def _with_arguments(state: ConsoleState, themes: Sequence[str]) -> list[Suggestion]:
    """Commands whose arguments are known here."""
    status = state.latest.status if state.latest else None
    found = [Suggestion(f"theme {name}", "use this theme") for name in themes]
    found += [Suggestion(f"ctx {address}", "this cluster again") for address in state.setup.joined if address != state.link.address]
    found += [Suggestion(f"export {form}", "this screen's list") for form in ("json", "jsonl", "csv")]
    if status is not None:
        found += [Suggestion(f"{_word(node.state)} {node.worker_id}", "preview") for node in status.nodes[:50]]
        found += [Suggestion(f"cancel {session.session_id}", "preview") for session in status.sessions[:50]]
        found += [Suggestion(f"strategy {c.strategy}", "preview") for c in state.whatif.candidates if c.plan is not None]
        found += [
            Suggestion(f"plan {plan.plan_version}", "compare with it")
            for plan in state.history.plans
            if plan.plan_version != status.plan_version
        ]
        found += [Suggestion(f"adapt {mode}", "preview") for mode in ("off", "suggest", "auto") if mode != status.adaptation.mode]
        if status.adaptation.suggestion_id:
            found.append(Suggestion(f"confirm {status.adaptation.suggestion_id}", "preview"))
    if state.recording:
        found.append(Suggestion("record off", "end the recording"))
    return found


def _word(state: NodeState) -> str:
    """What can be done with a node."""
    return {NodeState.DRAINING: "undrain", NodeState.LOST: "forget"}.get(state, "drain")


def _of_keys(keys: Sequence[Key]) -> list[Suggestion]:
    return [Suggestion(key.id, f"{key.label}   {key.text}") for key in keys if not key.id.startswith(("nav.", "screen."))]


def _matches(text: str, suggestion: Suggestion) -> bool:
    words = text.lower().split()
    if not words:
        return " " not in suggestion.text or suggestion.text.split(" ")[1][:1].isupper() or suggestion.text.startswith("export json|")
    haystack = f"{suggestion.text} {suggestion.help}".lower()
    return suggestion.text.lower().startswith(text.lower()) or all(word in haystack for word in words)

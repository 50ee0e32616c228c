"""What the reader must know first: how far the start is, why nothing answers, what died, what the text is worth."""

from __future__ import annotations

from engine.data.precision import Identity, float_dtype
from engine.data.status import ClusterStatus, NodeState, Phase
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, line, wrap

MAX_FAILURES = 2
MAX_ERROR_ROWS = 2


def notices(state: ConsoleState, canvas: Canvas) -> Lines:
    """At least one row, which is blank when everything is in order, and a third of a body that is `canvas` at most; the most urgent first.

    Without a coordinator only that counts; else what is wrong, with the key that helps, comes before processes that died.
    """
    from noodle_tui.widgets.diagnosis_line import diagnosis_line  # not for the first paint

    offline = _offline(state, canvas)
    wrong = () if offline else (diagnosis_line(state, canvas),)
    rows = (*offline, *filter(None, wrong), *_failures(state, canvas), *_phase(state, canvas))
    return rows[: max(3, canvas.height // 3)] or (BLANK,)


def num_rows_above(state: ConsoleState, canvas: Canvas) -> int:
    """How many rows a screen leaves to notices: one while there is a plan. More of them cover what is below it, so that nothing jumps."""
    return 1 if state.shown is not None and state.shown.status.stages else len(notices(state, canvas))


def opening(state: ConsoleState, canvas: Canvas) -> Lines:
    """The body while no coordinator has answered yet."""
    rows = [*_failures(state, canvas), *_offline(state, canvas)]
    if state.link.state is LinkState.CONNECTING:
        rows += _waiting_for(state, canvas)
    return tuple(rows)[: canvas.height]


def _waiting_for(state: ConsoleState, canvas: Canvas) -> Lines:
    link = state.link
    if link.address and not link.boot:
        keys = state.named(" {link.retry} = retry now   {app.quit} = quit")
        return (line(f" Waiting for the coordinator at {link.address} ..."), line(Span(keys, "dim")))
    first = [line(f" {row}") for row in wrap(link.boot or "Starting ...", canvas.width - 2)]
    if not link.address:
        return (*first, line(Span(" The coordinator answers first, then its workers appear here.", "dim")))
    return (*first, line(f" The coordinator listens at {link.address}; waiting for its first answer ..."))


def _failures(state: ConsoleState, canvas: Canvas) -> Lines:
    rows: list[Line] = []
    for text in state.failures[:MAX_FAILURES]:
        first, *more = wrap(text, canvas.width - 8)
        rows += [line(" ", Span("ERROR", "error"), f" {first}"), *(line(f"       {row}") for row in more[:1])]
    if len(state.failures) > MAX_FAILURES:
        rows.append(line(Span(f"       and {len(state.failures) - MAX_FAILURES} more processes", "dim")))
    return tuple(rows)


def _offline(state: ConsoleState, canvas: Canvas) -> Lines:
    if state.link.state is LinkState.VERSION:
        return _versions(state, canvas)
    if state.link.state is not LinkState.OFFLINE or not state.link.error:
        return ()
    again = "start it again" if state.failures or not state.link.address else "retry now"
    hint = state.named(f"{{link.retry}} = {again}   {{app.quit}} = quit") if state.replay is None else state.named("{screen.logs} = logs")
    room = canvas.width - len(hint) - 5
    first, _, rest = (state.link.error, "", "") if len(state.link.error) <= room else state.link.error.partition(": ")
    if len(first) <= room:  # the key stands in the first row
        rows = [line(f" {row}") for row in wrap(rest, canvas.width - 2)[: MAX_ERROR_ROWS - 1]] if rest else []
        return (line(f" {first}   ", Span(hint, "accent")), *rows)
    rows = [line(f" {row}") for row in wrap(state.link.error, canvas.width - 2)[:MAX_ERROR_ROWS]]
    return (*rows, line(Span(f" {hint}", "dim")))


def _versions(state: ConsoleState, canvas: Canvas) -> Lines:
    """Both versions and the way out are worth all their rows."""
    first, *more = wrap(state.link.error, canvas.width - 10)
    rows = [line(" ", Span("VERSION", "error"), f" {first}"), *(line(f"         {row}") for row in more)]
    keys = state.named(" {link.retry} = try again now   {app.command} ctx HOST:PORT = another cluster   {app.quit} = quit")
    return (*rows, line(Span(keys, "dim")))


def _phase(state: ConsoleState, canvas: Canvas) -> Lines:
    """The coordinator's own sentence while it cannot serve, and how to get workers when there are none."""
    if state.shown is None or state.shown.status.phase is Phase.SERVING:
        return ()
    status = state.shown.status
    lost = any(node.state is NodeState.LOST for node in status.nodes)
    head = Span("DEGRADED", "error") if lost or status.failure else Span(str(status.phase), "accent")
    sentence = (status.failure or _gathering(status) or status.detail).removeprefix(f"{status.phase} ")
    rows = [line(" ", head, f"  {row}") if not i else line(f" {row}") for i, row in enumerate(wrap(sentence, canvas.width - 13)[:2])]
    return tuple(rows)


def _gathering(status: ClusterStatus) -> str:
    """What is waited for once workers have come: the coordinator only says how many it wants."""
    from noodle_tui.listings.nodes import BOOTING  # not for the first paint

    if status.phase is not Phase.GATHERING or any(node.state is NodeState.LOST for node in status.nodes):
        return ""
    busy = [f"{node.worker_id} is {node.state}" for node in status.nodes if node.state in BOOTING]
    joined = f"{len(status.nodes)} of {status.num_workers_expected} workers have joined"
    return f"{joined}; {', '.join(busy[:3])}{f' and {len(busy) - 3} more' if busy[3:] else ''}" if busy else joined


def weights(state: ConsoleState, canvas: Canvas) -> Lines:
    if state.shown is None:
        return ()
    status = state.shown.status
    facts = []
    if status.model.random_weights:
        facts.append("random weights: answers are noise")
    if status.model.name and not status.model.has_tokenizer:
        facts.append("no tokenizer: text as bytes")
    precision = status.model.precision
    keeps_less = precision.kv_dtype not in ("", float_dtype(precision.computed_dtype))
    if precision.sentence and (keeps_less or precision.stored_dtype != precision.computed_dtype):
        facts.append(precision.sentence)
    if status.identity is Identity.WITHIN_TOLERANCE:
        facts.append(f"identity grade {status.identity}: {status.identity.sentence}")
    rows = wrap("; ".join(facts), canvas.width - 7) if facts else []
    return tuple(line(" ", Span("NOTE", "warn"), f" {row}") if i == 0 else line(f"      {row}") for i, row in enumerate(rows))

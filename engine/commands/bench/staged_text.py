"""The table of `bench staged` for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.commands.output import table
from engine.report.staged import Figures, StagedRow, rankings

_HEADER = ("PLAN", "SESSIONS", "STEP ms", "SIMULATED", "ERROR %", "TOKENS/S", "SIMULATED", "ERROR %", "TTFT ms", "SIMULATED", "ERROR %", "")


def staged_text(rows: Sequence[StagedRow], native: Figures, document: dict[str, Any]) -> str:
    head = (
        f"staged: {document['model']}, {document['prompt_tokens']} prompt and {document['num_tokens']} new tokens, "
        f"{document['num_threads']} threads each, {document['rounds']} interleaved rounds, quieter quartiles"
    )
    alone = ("generate()", "1", _ms(native.step_s), "", "", f"{native.tokens_per_s:.2f}", "", "", _ms(native.ttft_s), "", "", "")
    noise = f"other programs used {100 * document['foreign_share']:.1f} % of the machine meanwhile"
    if document["foreign_share"] > 0.03:
        noise += ": the figures are rough, repeat it when the machine is quiet"
    cells = [alone, *(_cells(row) for row in rows)]
    found = document["calibration"]
    names = ("step", "tokens/s", "TTFT")
    errors = [f"{name} {100 * error:.1f} %" for name, error in zip(names, document["median_errors"].values(), strict=True)]
    foot = [
        noise,
        f"calibrated with the rows marked c: workers take {found['slowdown']:.2f} times the profile "
        f"and {found['prompt_slowdown']:.2f} times that for prompts, "
        f"{100 * found['neighbour_share']:.1f} % more for every further stage, a hop {_ms(found['hop_s'])} ms, "
        f"opening a session {_ms(found['open_s'])} ms; a step keeps {found['busy_cores']:.2f} cores busy, "
        f"a prompt {found['prompt_busy_cores']:.2f}",
        f"median error of the other rows: {', '.join(errors)}",
        *(_ranking(ranking) for ranking in rankings(rows)),
    ]
    return "\n".join((head, table(_HEADER, cells), *foot))


def _cells(row: StagedRow) -> tuple[str, ...]:
    measured, simulated = row.measured, row.simulated
    return (
        "+".join(map(str, row.layers)), str(row.sessions),
        _ms(measured.step_s), _ms(simulated.step_s), _percent(row.error("step_s")),
        f"{measured.tokens_per_s:.2f}", f"{simulated.tokens_per_s:.2f}", _percent(row.error("tokens_per_s")),
        _ms(measured.ttft_s), _ms(simulated.ttft_s), _percent(row.error("ttft_s")),
        "c" if row.calibrated else "",
    )  # fmt: skip


def _ranking(ranking: Any) -> str:
    orders = [" > ".join("+".join(map(str, layers)) for layers in order) for order in (ranking.measured, ranking.simulated)]
    return (
        f"fastest first with {ranking.sessions} sessions: measured {orders[0]}; simulated {orders[1]}; "
        f"{ranking.num_same} of {ranking.num_pairs} pairs that differ by more than 3 % are in the same order"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}"

"""`rollback` picks the plan to go back to, and `status` says what adaptation offers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.cli import main
from engine.commands.cluster.inspect import _text
from engine.data.binary_size import binary_size as size
from engine.data.errors import NotFound
from engine.data.moves import MoveEstimate
from engine.data.plan import AdoptedPlan, Plan, Stage, former_plan
from engine.service import client
from tests.tui.frames import changed, status


def adopted(*cuts: int) -> list[AdoptedPlan]:
    """Plan 1, 2, ... with two stages that meet at each cut."""
    return [AdoptedPlan(float(n), Plan(n, "balanced", (Stage("w1", 0, cut), Stage("w2", cut, 9)))) for n, cut in enumerate(cuts, 1)]


def test_the_newest_plan_with_other_stages_is_the_one_before() -> None:
    assert former_plan(adopted(3, 4), 2).plan_version == 1
    assert former_plan(adopted(3, 4, 4), 3).plan_version == 1, "a plan of the same stages would change nothing"
    assert former_plan(adopted(3, 4, 3), 3).plan_version == 2, "what was rolled back comes back"


def test_a_plan_can_be_named_and_an_unknown_one_lists_those_there_are() -> None:
    assert former_plan(adopted(3, 4, 5), 3, 1).plan_version == 1
    with pytest.raises(NotFound, match="plan #7 is not one to go back to; plans with other stages: #1, #2"):
        former_plan(adopted(3, 4, 5), 3, 7)
    with pytest.raises(NotFound, match="no plan before #1 to go back to; plans with other stages: none"):
        former_plan(adopted(3), 1)


def test_without_a_present_plan_every_one_counts() -> None:
    assert former_plan(adopted(3, 4), 9).plan_version == 2


def test_the_status_tells_the_mode_and_how_to_confirm_a_suggestion() -> None:
    assert "adaptation: suggest; suggestion 7: noodle-engine adapt confirm 7" in _text(status(mode="suggest", suggestion_id=7))
    assert "adaptation" not in _text(status(mode="off"))


def test_the_status_counts_bytes_as_the_console_does() -> None:
    shown = status()
    node = changed(shown.nodes[0], resident_bytes=300 * 2**20, kv_used_bytes=2**20, kv_budget_bytes=3 * 2**30)
    row = next(row for row in _text(replace(shown, nodes=(node,))).split("\n") if row.startswith(node.worker_id))
    assert f" {size(300 * 2**20)} " in row and " 300M " in row and " 1M/3.0G " in row


class MovedOn:
    """A coordinator whose plan becomes another one between two questions."""

    def __init__(self, *_: object) -> None: ...

    async def __aenter__(self) -> MovedOn:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def status(self) -> object:
        return status(plan_version=2)

    async def plans(self) -> list[AdoptedPlan]:
        return adopted(3, 4)

    async def estimate_move(self, stages: tuple[Stage, ...]) -> MoveEstimate:
        return MoveEstimate(2, 1, 0, 0, 0, 0.0, 0.0, 0.0, 0, ())

    async def plan(self, strategy: str, stages: tuple[Stage, ...]) -> Plan:
        return Plan(4, "given", stages, (0.01, 0.01), for_version=3)


def test_a_preview_of_two_plans_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(client, "Client", MovedOn)
    assert main(["rollback", "--dry-run", "--connect", "127.0.0.1:1"]) == 2
    assert capsys.readouterr().err == "noodle-engine: the plan is #3 now, the request was made for #2: look again\n"

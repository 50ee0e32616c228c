"""`rebalance` asks for the strategy and the stages that it was given, dry or not."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from engine.cli import main
from engine.data.plan import Plan, Stage
from engine.service import client
from tests.tui.frames import status


class FakeClient:
    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, *_: object) -> None: ...

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def status(self) -> object:
        return status(plan_version=14)

    async def plan(self, *arguments: object) -> Plan:
        self.calls.append(("plan", *arguments))
        return Plan(15, "cost", (Stage("w1", 0, 9),), (0.01,))

    async def apply(self, *arguments: object) -> Plan:
        self.calls.append(("apply", *arguments))
        return Plan(15, "cost", (Stage("w1", 0, 9),), (0.01,))


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ((), ("apply", 14, "", ())),
        (("--for-plan", "13"), ("apply", 13, "", ())),
        (("--strategy", "cost"), ("apply", 14, "cost", ())),
        (("--strategy", "cost", "--dry-run"), ("plan", "cost", ())),
        (("--stages", "w1:0-8", "--dry-run"), ("plan", "", (Stage("w1", 0, 9),))),
    ],
)
def test_what_is_asked_of_the_coordinator(options: tuple[str, ...], call: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "Client", FakeClient)
    monkeypatch.setattr(FakeClient, "calls", [])
    assert main(["rebalance", "--connect", "127.0.0.1:1", *options]) == 0
    assert FakeClient.calls == [call]

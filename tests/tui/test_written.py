"""What the console asks of a cluster's processes for its Logs."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.data.errors import Refused, Unavailable
from engine.data.status import Severity, WrittenLine
from noodle_tui.cluster.written import Written


class Cluster:
    """Answers as a coordinator does, about its workers too."""

    def __init__(self, **lines: tuple[WrittenLine, ...] | Exception | asyncio.Event) -> None:
        self.lines, self.asked = lines, list[tuple[str, int]]()

    async def ask(self, call: str, name: str, after: int) -> Any:
        self.asked.append((name, after))
        found = self.lines.get(name or "own", ())
        if isinstance(found, asyncio.Event):
            await found.wait()
            raise Unavailable(f"worker {name} does not answer")
        if isinstance(found, Exception):
            raise found
        for event in (e for e in self.lines.values() if isinstance(e, asyncio.Event) and name == "w2"):
            event.set()
        return tuple(line for line in found if line.number > after)


def wrote(number: int, text: str) -> WrittenLine:
    return WrittenLine(number, float(number), Severity.INFO, text)


def test_a_worker_that_stands_still_holds_up_no_other() -> None:
    async def run() -> list[str]:
        cluster = Cluster(own=(wrote(3, "c"),), w1=asyncio.Event(), w2=(wrote(2, "b"),))  # w1 answers once w2 has been asked
        written = Written()
        found = await asyncio.wait_for(written.since(cluster, ("w1", "w2")), 60)  # type: ignore[arg-type]
        assert await written.since(Cluster(own=cluster.lines["own"], w2=cluster.lines["w2"]), ("w2",)) == ()  # type: ignore[arg-type]
        return [f"{line.source} {line.text}" for line in found]

    assert asyncio.run(run()) == ["w2 b", "coordinator c"]


def test_where_the_coordinator_refuses_no_worker_is_asked_and_it_is_said_once() -> None:
    async def run() -> None:
        cluster, written = Cluster(own=Refused("this needs the role operator")), Written()
        first = await written.since(cluster, ("w1", "w2"))  # type: ignore[arg-type]
        assert [line.text for line in first] == ["what the cluster's processes write cannot be read: this needs the role operator"]
        assert await written.since(cluster, ("w1", "w2")) == () and cluster.asked == [("", 0), ("", 0)]  # type: ignore[arg-type]

    asyncio.run(run())

"""Made-up plans for tests: any number of stages and items, any names, ties at either end."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from engine.data.model import Item
from engine.data.plan import Stage
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.estimating.bands import Band, Rival
from engine.planning.problem import ADDITIVE, OVERLAPPED
from engine.planning.solution import Proof, Search, SolvedStage

HOSTILE = ["h[/bold]\x1b[31m", "\u2028\n\r\t\x00", "", "caf\u00e9 \u2717", "\ud800", "x" * 300, "<script>", "a|b>c!!", "{name}"]
names = st.sampled_from(HOSTILE) | st.text(max_size=12)
times_s = st.floats(0, 1e3) | st.sampled_from([0.0, 1e-9, 1e-3])


@st.composite
def chains(draw: st.DrawFn, max_items: int = 16) -> tuple[Item, ...]:
    n = draw(st.integers(1, max_items))
    items = [Item(draw(names), draw(st.integers(10, 10**9)), draw(st.integers(0, 10**5)), draw(st.integers(0, 10**5))) for _ in range(n)]
    if n > 1 and draw(st.booleans()):
        writer, other = draw(st.sampled_from([(0, n - 1), (n - 1, 0)]))
        item = items[writer]
        items[writer] = Item(item.name, item.weight_bytes, item.kv_bytes_per_token, item.output_bytes_per_token, other, 7)
    return tuple(items)


@st.composite
def plans_of(draw: st.DrawFn, items: tuple[Item, ...]) -> PartitionPlan:
    n = len(items)
    cuts = draw(st.sets(st.integers(1, n - 1))) if n > 1 else set()
    bounds = [0, *sorted(cuts), n]
    nodes = draw(st.lists(names, min_size=len(bounds) - 1, max_size=len(bounds) - 1, unique=True))
    stages = tuple(
        SolvedStage(node, start, stop, draw(times_s), draw(times_s) if stop < n else 0.0, draw(st.floats(0, 1e12)), room)
        for node, start, stop, room in zip(nodes, bounds[:-1], bounds[1:], draw(_rooms(len(nodes))), strict=True)
    )
    figures = [draw(st.floats(0, 1e6)) for _ in range(5)]
    texts = [draw(names) for _ in range(4)]
    return PartitionPlan(
        texts[0], items, stages, *figures[:3], Proof(*figures[3:], draw(st.booleans()), draw(st.booleans())),
        Search(texts[1], texts[2], texts[3], 0.25), draw(st.integers(1, 64)), draw(st.sampled_from([OVERLAPPED, ADDITIVE])),
        draw(st.integers(0, 9)), texts[2], texts[3], (texts[0],), draw(st.none() | _bands), draw(st.none() | _rivals),
    )  # fmt: skip


_bands = st.builds(Band, times_s, times_s, st.dictionaries(names, times_s).map(lambda within: tuple(within.items())))
_ranges = st.builds(Stage, names, st.integers(0, 99), st.integers(0, 99))
_rivals = st.builds(Rival, st.lists(_ranges).map(tuple), names, st.floats(0.1, 9.0), times_s, times_s)


def _rooms(num: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.just(math.inf) | st.floats(0, 1e12), min_size=num, max_size=num)


plans = chains().flatmap(plans_of)


def plan(*stages: tuple[str, int, int, float, float], items: tuple[Item, ...] | None = None, **changes: object) -> PartitionPlan:
    """`(node, start, stop, time_s, hop_s)` each; every stage uses 1 of 2 GB."""
    chain = items or tuple(Item(f"h.{i}", 100 + i, 10, 4) for i in range(stages[-1][2]))
    solved = tuple(SolvedStage(*stage, 1e9, 2e9) for stage in stages)
    costs = [max(stage.time_s, stage.hop_s) for stage in solved]
    trip_s = sum(stage.time_s + stage.hop_s for stage in solved)
    proof = Proof(max(costs), max(costs), optimal=True)
    values = {"bottleneck_s": max(costs), "round_trip_s": trip_s, "period_s": trip_s, "proof": proof, "search": Search(), **changes}
    return PartitionPlan("balanced", chain, solved, **values)  # type: ignore[arg-type]

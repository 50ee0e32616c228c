"""What `z`, `m`, `f` and `g` do: large plans by machine, items alike as one, other measures, one kind of event."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from noodle_tui.app import ConsoleApp
from noodle_tui.core import messages as m
from noodle_tui.core.pages import PROFILE_METRICS, WHATIF_METRICS, Entry, EntryKind, Page
from noodle_tui.core.profile_view import ItemTime
from noodle_tui.glyphs import ASCII
from noodle_tui.listings import cursor_row, shown_rows
from noodle_tui.listings.layers import ALIKE, LayerRow, _folded
from noodle_tui.listings.machines import FOLD_FROM, MachineRow, folds_stages
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas, width_of
from noodle_tui.widgets.key_line import key_line
from tests.tui import frames, scenes
from tests.tui.harness import live, run
from tests.tui.test_pictures import picture, text_of


def body(state: ConsoleState, width: int = 120, height: int = 60) -> str:
    return text_of(picture(state, width, height, ASCII))


# --- the plan by machine --------------------------------------------------------------------------------------
def test_above_forty_stages_the_plan_is_shown_by_machine_until_z_or_a_filter() -> None:
    assert FOLD_FROM == 41
    small, large = scenes.large(40, 5), scenes.large(48, 6)
    assert not folds_stages(small) and folds_stages(large)
    assert "rack-3 (8)" in body(large) and "S29 rack-3" not in body(large).split("ITEM")[0]
    assert "S29 rack-3" in body(scenes.keyed(large, "view.expand"), height=90).split("ITEM")[0]
    assert scenes.keyed(large, "view.expand", "view.expand") == large
    found = scenes.state_of((99.9, m.EntryChanged(Entry(EntryKind.FILTER, "gpu5"))), state=large)
    assert [row.name for row in shown_rows(found, Page.PLAN)] == [f"S{8 * i + 5} rack-{i}-gpu5" for i in range(6)]


def test_the_overview_of_a_large_plan_shows_the_machines_that_take_longest_until_z() -> None:
    state = scenes.keyed(scenes.large(), "screen.overview")
    for size, names in (((120, 40), [f"rack-{i} (8)" for i in range(6)]), ((80, 24), ["rack-3 (8)", "rack-4 (8)"])):
        plan = body(state, *size).split("NODE ")[0]
        assert [row[1:11] for row in plan.split("\n") if "(8)" in row] == names, "in the order of the step"
        assert ("+ 4 more machines, at most 17.7ms each" in plan) is (size[0] == 80)
        assert "48 stages on 6 machines" in plan and "23.6ms !!" in plan
    assert "EVENTS" in body(state, 80, 24)
    assert "48 stages, slowest first" in body(scenes.keyed(state, "view.expand"))
    assert "slowest first" in body(scenes.keyed(scenes.large(40, 5), "screen.overview")), "forty are listed"


def test_the_bottlenecks_machine_is_in_sight_though_others_take_longer() -> None:
    hosts = {f"n{i}": f"h{min(i, 44) // 11}" if i < 44 else "alone" for i in range(45)}
    nodes = tuple(frames.node(name, i, i + 1, host=host) for i, (name, host) in enumerate(hosts.items()))
    stages = tuple(frames.stage(name, i, i + 1, 0.009 if host == "alone" else 0.002) for i, (name, host) in enumerate(hosts.items()))
    state = scenes.state_of((99.5, scenes.live(nodes=nodes, stages=stages, num_items=45)))
    assert "alone (1)" in body(state, 80, 24) and "h3 (11)" not in body(state, 80, 24)


def test_z_folds_on_its_own_screen_only() -> None:
    assert folds_stages(scenes.keyed(scenes.large(), "screen.events", "view.expand", "screen.plan"))


def test_a_machine_is_the_sum_of_its_stages_and_enter_opens_its_slowest() -> None:
    state = scenes.keyed(scenes.large(), "nav.down", "nav.down", "nav.down")
    rows = shown_rows(state, Page.PLAN)
    assert all(isinstance(row, MachineRow) for row in rows)
    assert sum(row.time_s for row in rows) == pytest.approx(sum(s.compute_p50_s for s in state.shown.status.stages))  # type: ignore[union-attr]
    assert [row.index for row in rows for row in row.rows] == list(range(48))
    assert [row.host for row in rows if row.is_bottleneck] == ["rack-3"]
    node = cursor_row(state, Page.PLAN).node  # type: ignore[union-attr]
    assert node.memory_bytes == 8 * frames.node().memory_bytes
    opened = scenes.keyed(state, "nav.in")
    assert opened.ui.page is Page.NODES and cursor_row(opened, Page.NODES).node.worker_id == "rack-3-gpu5"  # type: ignore[union-attr]


def test_stages_of_one_machine_may_lie_apart_and_one_without_a_host_stands_alone() -> None:
    nodes = tuple(frames.node(f"n{i}", i, i + 1, host="" if i == 2 else f"h{i % 2}") for i in range(50))
    stages = tuple(frames.stage(f"n{i}", i, i + 1, 0.002) for i in range(50))
    state = scenes.keyed(scenes.state_of((99.5, scenes.live(nodes=nodes, stages=stages, num_items=50))), "screen.plan")
    assert [row.name for row in shown_rows(state, Page.PLAN)] == ["h0 (24)", "h1 (25)", "n2 (1)"]
    rows = [row for row in body(state, 200).split("\n") if "50.0ms" in row]
    assert len(rows) == 1 and rows[0].count("=") >= 25, "h1 is drawn wherever its stages lie"


def test_a_filter_leaves_stages_where_they_lie_in_the_step() -> None:
    state = scenes.keyed(scenes.large(), "view.expand", *["nav.down"] * 29)
    found = scenes.state_of(
        (
            99.9,
            m.EntryChanged(Entry(EntryKind.FILTER, "rack-3-gpu5")),
        ),
        state=state,
    )

    def bar(of: ConsoleState) -> str:
        return next(row for row in body(of, height=90).split("\n") if "S29 " in row and "8.5ms" in row)

    assert bar(found) == bar(state)
    some = scenes.state_of((99.9, m.EntryChanged(Entry(EntryKind.FILTER, "gpu5"))), state=state)
    assert len(shown_rows(some, Page.PLAN)) == 6 and "    hop" not in body(some), "hops are between neighbours"


@pytest.mark.parametrize("num_stages", [13, 40])
def test_above_twelve_stages_hops_have_no_lines_of_their_own(num_stages: int) -> None:
    def hops(state: ConsoleState) -> int:
        return body(state, height=140).count("    hop")

    assert hops(scenes.large(num_stages, 1)) == 0 and hops(scenes.large(12, 1)) == 11


def test_an_export_holds_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status = scenes.large().shown.status  # type: ignore[union-attr]

    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot, nodes=status.nodes, stages=status.stages, num_items=48)
        await pilot.press("3")
        assert folds_stages(app.state)
        app.effects.run("export json out")
        await pilot.press("z")
        assert not folds_stages(app.state)

    run(test)
    assert len(json.loads((tmp_path / "out").read_text())) == 48


# --- items alike ----------------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from([1.0, 1.05, 1.2, 2.0]), min_size=1, max_size=40))
def test_folding_hides_only_what_is_alike_and_never_the_slowest(values: list[float]) -> None:
    slowest = max(values)
    rows = tuple(
        LayerRow(ItemTime(i, f"h.{i}", value, value, 0.0, 1, 0.1), value, slowest, 1.0, value == slowest, "", str)
        for i, value in enumerate(values)
    )
    kept = _folded(rows, "z")
    at = 0
    for row in kept:
        assert row.item.index == at
        hidden = values[at + 1 : at + 1 + row.num_alike]
        assert all(abs(value - row.value) <= ALIKE * row.value and value != slowest for value in hidden)
        assert not row.num_alike or row.alike == f"{min(hidden)}..{max(hidden)}"
        at += 1 + row.num_alike
    assert at == len(values) and any(row.is_slowest for row in kept)


def test_items_alike_are_one_row_until_z_a_filter_or_a_sort() -> None:
    state = scenes.deep()
    names = [row.item.name for row in shown_rows(state, Page.PROFILE)]
    assert names == ["embed", "h.0", "h.9", "h.10", "head"] and "h.0 [+8, z]" in body(state)
    assert len(shown_rows(scenes.keyed(state, "view.expand"), Page.PROFILE)) == 18
    assert len(shown_rows(scenes.keyed(state, "list.sort"), Page.PROFILE)) == 18
    found = scenes.state_of((99.9, m.EntryChanged(Entry(EntryKind.FILTER, "h.14"))), state=state)
    assert [row.item.name for row in shown_rows(found, Page.PROFILE)] == ["h.14"]


# --- measures -------------------------------------------------------------------------------------------------
def test_m_goes_round_the_measures_of_the_profile() -> None:
    seen = [body(scenes.profiled(*["view.metric"] * i)) for i in range(len(PROFILE_METRICS) + 1)]
    assert seen[0] == seen[-1] and len(set(seen)) == len(PROFILE_METRICS)
    assert "TIME, 0..142ms" in seen[0] and "MEMORY, 0..384K" in seen[1] and "BYTES, 0.." in seen[2]
    assert all("h.0" in row for text in seen for row in text.split("\n") if row.endswith("!!")), (
        "the mark is of time, whatever the bars show"
    )
    assert "3.2x" in body(scenes.deep()) and "2.0x" not in seen[1], "and so is what stands out"


def test_m_goes_round_the_measures_of_what_if() -> None:
    state = scenes.keyed(scenes.compared(), "nav.down", "nav.down", "nav.down")
    seen = [body(scenes.keyed(state, *["view.metric"] * i)) for i in range(len(WHATIF_METRICS) + 1)]
    assert seen[0] == seen[-1] and len(set(seen)) == len(WHATIF_METRICS)
    assert "|c 7.9 " in seen[0] and "|b 4.0G" in seen[1] and "|a 6 " in seen[2]
    assert "!!" in seen[0].partition("DIFF")[2] and "!!" not in seen[2].partition("DIFF")[2]


def test_memory_of_a_base_is_what_its_own_move_leaves() -> None:
    state = scenes.keyed(scenes.compared(), "nav.down", "nav.down", "nav.down", "view.compare", "nav.down", "view.metric")
    rows = body(state).partition("DIFF balanced > memory_aware")[2].split("\n")
    strips = [row.split()[1:] for row in rows if row.startswith((" base ", " next ")) and "|" in row]
    assert len(strips) == 2 and strips[0] == strips[1], "both moves leave the same here"
    candidate = m.CandidateArrived("guessed", frames.plan(bottleneck_s=0.001))
    guess = scenes.keyed(scenes.state_of((99.5, candidate), state=scenes.compared()), "nav.down", "nav.down", "nav.down", "view.metric")
    assert "has not said what memory" in body(guess)


def test_the_keys_are_m_z_f_g_and_c() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("7", "m", "z", "c", "4", "m", "m", "5", "f")
        ui = app.state.ui
        assert (ui.profile_metric, ui.whatif_metric, ui.profile_compares) == (1, 2, True)
        assert ui.expanded == {Page.PROFILE} and ui.event_kind == "plan"
        await pilot.press("down", "g")
        assert app.state.ui.listing(Page.EVENTS).cursor == ""

    run(test)


def test_m_does_nothing_elsewhere() -> None:
    for page in set(Page) - {Page.WHATIF, Page.PROFILE}:
        state = scenes.page(page)
        assert scenes.keyed(state, "view.metric") == state


def test_c_compares_with_the_profile_that_was_shown_before() -> None:
    state = scenes.twice_profiled("view.compare")
    h_0 = next(row for row in shown_rows(state, Page.PROFILE) if row.item.name == "h.0")
    assert h_0.before_s == h_0.item.p50_s / 2 and " 70.8 +100% " in body(state) and "on gpu-a" in body(state)
    assert "before" not in body(scenes.keyed(state, "view.compare"))
    decode = scenes.keyed(state, "view.phase")
    assert all(row.before_s == row.item.p50_s for row in shown_rows(decode, Page.PROFILE)), "the same phase of the other profile"
    alone = scenes.profiled("view.compare")
    assert "n shows another" in body(alone) and "+0%" not in body(alone)
    assert alone.profile.view is not None
    by_another_name = replace(alone.profile.view, path="/somewhere/profile.json")
    again = scenes.state_of((99.9, m.ProfileLoaded("p", by_another_name)), state=alone)
    assert again.profile.earlier is None, "read again, it is still the same profile"


def test_a_profile_of_the_model_that_serves_is_shown_beside_its_serving() -> None:
    text = body(scenes.serving_profiled())
    assert "# compute 4.2  + waits 2.0  = hop 1.0" in text, "the stage that owns the item under the cursor"
    assert "gpu-a 1.6ms an item   cpu-b 1.4ms   gpu-c 11.8ms" in text
    other = body(scenes.profiled("nav.down", "nav.down"))
    assert "an item" not in other and "waits" not in other, "fourteen items serve, the profile has six"


# --- events ---------------------------------------------------------------------------------------------------
def test_f_shows_one_kind_of_event_after_the_other_and_says_so() -> None:
    state = scenes.page(Page.EVENTS)
    assert "only" not in body(state)
    node, plan = scenes.keyed(state, "view.kind"), scenes.keyed(state, "view.kind", "view.kind")
    assert {row.kind for row in shown_rows(node, Page.EVENTS)} == {"node"} and "only node events" in body(node)
    assert {row.kind for row in shown_rows(plan, Page.EVENTS)} == {"plan"}
    assert scenes.keyed(plan, "view.kind").ui.event_kind == ""
    assert "serving on 4 stages" in body(scenes.keyed(node, "screen.overview")), "the Overview shows all kinds"
    assert "plan" in {row.kind for row in shown_rows(scenes.keyed(node, "time.prev"), Page.EVENTS)}, "a plan change can be reached"


def test_g_goes_back_to_the_newest() -> None:
    state = scenes.keyed(scenes.page(Page.EVENTS), "nav.down", "nav.down")
    assert cursor_row(state, Page.EVENTS).sequence == 1 and cursor_row(scenes.keyed(state, "view.newest"), Page.EVENTS).sequence == 3  # type: ignore[union-attr]


# --- footer and wide screens ----------------------------------------------------------------------------------
@pytest.mark.parametrize("page", Page)
def test_the_footer_stays_within_the_width_before_anything_is_cut(page: Page) -> None:
    for state in (scenes.page(page), scenes.page(page, "app.help"), scenes.keyed(scenes.large(), f"screen.{page.value}")):
        for width in range(60, 201):
            assert width_of(key_line(state, Canvas(width, 24, ASCII, 0.0))) <= width


def test_the_footer_names_z_on_the_plan_only_where_it_does_something() -> None:
    def footer(state: ConsoleState) -> str:
        return body(state).rstrip("\n").rpartition("\n")[2]

    assert "z all" in footer(scenes.large()) and "z all" not in footer(scenes.page(Page.PLAN))


def test_wide_screens_have_graphs_of_median_and_p95() -> None:
    row = next(row for row in body(scenes.lived(), 200).split("\n") if row.startswith(" STEP"))
    assert "p50 23.9ms [" in row and "p95 36.0ms [" in row
    narrow = next(row for row in body(scenes.lived(), 120).split("\n") if row.startswith(" STEP"))
    assert "[" not in narrow and "TTFT" in narrow and "TTFT" in body(scenes.lived(), 200)

"""Lists: filter, sort, cursor and drawing against slow references."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from noodle_tui.glyphs import ASCII, UNICODE
from noodle_tui.text.lines import Canvas, width_of
from noodle_tui.text.tables import Column, Listing, Table, arrange, cursor_index, draw_table, record


@dataclass(frozen=True)
class Row:
    name: str
    size: float | None
    bad: bool


WORDS = st.sampled_from(["alpha", "beta", "gamma:x", "a b", "B\u6f22", ""])
ROWS = st.lists(st.builds(Row, WORDS, st.one_of(st.none(), st.floats(-5, 5)), st.booleans()), max_size=12).map(tuple)


def table(rows: tuple[Row, ...]) -> Table:
    columns = (
        Column("name", "NAME", 8, lambda r: r.name),
        Column("size", "SIZE", 6, lambda r: r.size, right=True),
        Column("hidden", "", 0, lambda r: "secret"),
        Column("rest", "REST", 0, lambda r: r.name * 3),
    )
    return Table("rows", rows, columns, identity=lambda r: f"{rows.index(r)}", is_warning=lambda r: r.bad)


def slowly_passes(row: Row, text: str) -> bool:
    fields = {"name": row.name, "size": str(row.size), "hidden": "secret", "rest": row.name * 3}
    for term in text.lower().split():
        wanted = not (term.startswith("!") and len(term) > 1)
        term = term if wanted else term[1:]
        name, _, value = term.partition(":")
        held = any(term in field.lower() for field in fields.values())
        if ":" in term and name in fields:
            held = value in fields[name].lower()
        if held is not wanted:
            return False
    return True


@settings(deadline=None)
@given(ROWS, st.lists(st.sampled_from(["a", "!a", "name:alpha", "!name:b", "size:1", "x:y", "!", "SECRET"]), max_size=3), st.booleans())
def test_filter(rows: tuple[Row, ...], terms: list[str], warn_only: bool) -> None:
    text = " ".join(terms)
    expected = [row for row in rows if slowly_passes(row, text) and (row.bad or not warn_only)]
    assert list(arrange(table(rows), Listing(filter=text), warn_only)) == expected


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_sort_is_stable_and_puts_nothing_last(rows: tuple[Row, ...], reverse: bool) -> None:
    found = arrange(table(rows), Listing(sort="size", reverse=reverse))
    numbers = [row for row in rows if row.size is not None]
    expected = sorted(numbers, key=lambda row: row.size, reverse=reverse)  # type: ignore[arg-type,return-value]
    nothing = [row for row in rows if row.size is None]
    assert list(found) == ([*nothing, *expected] if reverse else [*expected, *nothing])


@settings(deadline=None)
@given(ROWS, st.integers(0, 20), st.integers(20, 90), st.integers(2, 15))
def test_drawn_rows_fit_and_show_the_cursor(rows: tuple[Row, ...], index: int, width: int, height: int) -> None:
    for glyphs in (ASCII, UNICODE):
        lines = draw_table(table(rows), Listing(index=index), Canvas(width, height, glyphs, 0.0))
        assert len(lines) <= height and all(width_of(line) <= width for line in lines)
        if rows and height > 2:
            marked = ["".join(span.text for span in line) for line in lines if line and line[0].text.startswith(">")]
            assert len(marked) == 1


def test_the_cursor_stays_on_its_row_and_falls_back_to_its_place() -> None:
    rows = (Row("a", 1.0, False), Row("b", 2.0, False), Row("c", 3.0, False))
    assert cursor_index(table(rows), rows, Listing(cursor="2", index=0)) == 2
    assert cursor_index(table(rows), rows, Listing(cursor="gone", index=1)) == 1
    assert cursor_index(table(rows), rows, Listing(cursor="gone", index=99)) == 2
    assert cursor_index(table(()), (), Listing()) == 0


def test_a_record_holds_what_is_not_drawn_too() -> None:
    rows = (Row("a", None, False),)
    assert record(table(rows), rows[0]) == {"name": "a", "size": None, "hidden": "secret", "rest": "aaa"}

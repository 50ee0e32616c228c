"""How a step grows with its rows, where no cost model says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.profile.row_law import RowLaw


@given(st.floats(0.0, 1.0), st.integers(1, 500))
def test_a_share_makes_a_line(share: float, rows: int) -> None:
    law = RowLaw.of_share(share)
    assert law.factor(rows) == pytest.approx(1.0 + share * (rows - 1)) and law.share == pytest.approx(share)


@given(st.dictionaries(st.integers(2, 200), st.floats(1e-4, 10.0), max_size=12), st.floats(1e-4, 1.0))
def test_what_was_measured_stands_but_where_it_cannot_be(seconds: dict[int, float], one_s: float) -> None:
    """Each factor is the measured one, unless less rows took longer, or steps of their own would have been faster."""
    law = RowLaw.measured({1: one_s} | seconds)
    least, before = 1.0, 1
    for rows in sorted(seconds):
        most = least + rows - before
        assert law.factor(rows) == pytest.approx(min(max(seconds[rows] / one_s, least), most))
        least, before = law.factor(rows), rows
    assert law.factor(1) == 1.0 and all(law.factor(n) <= law.factor(n + 1) + 1e-9 for n in range(1, 250))


def test_both_ends_of_a_stair_make_a_stair() -> None:
    law = RowLaw.measured({1: 1.0, 2: 1.25, 3: 1.5, 4: 1.5, 5: 2.0, 8: 2.0})
    assert [law.factor(rows) for rows in range(1, 9)] == [1.0, 1.25, 1.5, 1.5, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(("rows", "factors"), [((), ()), ((2,), (1.0,)), ((1, 1), (1.0, 1.0)), ((1, 2), (1.0,)), ((1, 2), (1.0, 0.5))])
def test_what_cannot_be_is_refused(rows: tuple[int, ...], factors: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="rows rise from 1"):
        RowLaw(rows, factors)

"""Figures as people read them: few digits, and a unit that fits."""

from __future__ import annotations

from noodle_tui.text.figures import age, signed_percent, up_for, with_ms

TIMES = {
    0.0: "-",
    0.0118: "11.8ms",
    0.412: "412ms",
    9.9994: "9999ms",
    9.9996: "10.0s",
    14.7: "14.7s",
    146.973: "147s",
    700.0: "11m",
}


def test_a_time_has_the_unit_that_people_would_say() -> None:
    assert {seconds: with_ms(seconds) for seconds in TIMES} == TIMES


def test_how_long_something_is_up_is_whole_minutes() -> None:
    assert [up_for(s) for s in (0.0, 59.9, 60.0, 119.0, 7199.0, 7200.0)] == ["<1m", "<1m", "1m", "1m", "119m", "2h00m"]


def test_an_age_is_seconds_then_minutes() -> None:
    assert [age(s) for s in (0.5, 60, 119, 120, 7200)] == ["<1s", "60s", "119s", "2m", "2h00m"]


def test_a_change_is_a_share_and_from_ten_times_on_a_factor() -> None:
    assert [signed_percent(x) for x in (None, -0.034, 0.55, 8.99, 9.0, 12.6, 1e9)] == ["-", "-3%", "+55%", "+899%", "x10", "x14", "x9999"]

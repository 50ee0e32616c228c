"""Causes of a lost link in plain words; gRPC's own words are in the Logs only."""

from __future__ import annotations

import pytest

from noodle_tui.core import messages as m
from noodle_tui.core.pages import Page
from noodle_tui.text.link_errors import plainly
from tests.tui.scenes import page, state_of

HERE = "10.0.0.5:7070"


def told(reason: str) -> str:
    return plainly(f"cannot reach the coordinator at {HERE}: {reason}; is it running, and is the address right?", HERE)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Connection refused", "refuses: no coordinator listens there"),
        ("Delayed close due to in-progress write (ping timeout) (goaway sent)", "no longer answers"),
        ("Socket closed", "closed the connection"),
        ("Connection reset by peer", "closed the connection"),
        ("Connection timed out", "did not answer in time"),
        ("No route to host", "is not reachable from this machine"),
        ("DNS resolution failed for lab-a:7070", "is not known to this machine"),
        ("Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", "no secure connection"),
    ],
)
def test_a_known_cause_is_told_in_plain_words(reason: str, expected: str) -> None:
    text = told(reason)
    assert expected in text and HERE in text
    assert reason not in text and "goaway" not in text


def test_what_the_client_found_out_is_told_as_it_is() -> None:
    why = f"the certificate of {HERE} expired on 2026-01-01: have it renewed"
    assert plainly(f"cannot reach the coordinator at {HERE}: {why}", HERE) == f"{HERE}: {why}".partition(": ")[2]


def test_a_hosts_own_name_is_no_cause() -> None:
    assert "refuses" in plainly("cannot reach the coordinator at tls-box.closed:1: Connection refused; is it running?", "tls-box.closed:1")


def test_what_is_not_known_and_what_the_coordinator_said_itself_stay_as_they_are() -> None:
    assert told("Flux lost") == f"cannot reach the coordinator at {HERE}: Flux lost; is it running, and is the address right?"
    assert plainly("the plan is closed", HERE) == "the plan is closed"
    assert "NOODLE_TOKEN" in plainly("this cluster asks for a token: give --token or NOODLE_TOKEN", HERE)
    assert plainly("the coordinator closed the stream", "").startswith("the coordinator closed the connection")


def test_the_screen_says_the_meaning() -> None:
    lost = m.LinkLost(f"cannot reach {HERE}: x (ping timeout) (goaway sent); is it running?", 104.0)
    state = state_of((90.0, m.Dialling(HERE)), (91.0, lost), state=page(Page.OVERVIEW))
    assert state.link.error.startswith(f"{HERE} no longer answers") and "goaway" not in state.link.error

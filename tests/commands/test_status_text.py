"""What `noodle-engine status` says of sessions, in words."""

from __future__ import annotations

from engine.commands.cluster.inspect import _document, _text
from engine.commands.cluster.why import _nothing
from engine.data.precision import Identity, Precision
from engine.data.status import SessionStatus
from tests.tui import frames


def rows(*sessions: SessionStatus, finished: tuple[SessionStatus, ...] = ()) -> list[list[str]]:
    """The lines about sessions, as words."""
    lines = _text(frames.status(sessions=sessions, latest=finished)).splitlines()
    return [line.split() for line in lines if line.startswith(("s-", "SESSION"))]


def test_a_session_that_waits_says_where_and_for_what() -> None:
    running = SessionStatus("s-1", "decode", 12, 40, 64, 0.25, 14.06, 3.0, 0.031)
    waiting = SessionStatus("s-2", "queued", 9, 0, 64, 0.0, 0.0, 8.0, queue_place=2, waiting_s=7.6, why="1 before it in the queue")
    assert rows(running, waiting) == [
        ["SESSION", "STATE", "PROMPT", "OUT", "TOK/S", "TTFT", "ms", "P95", "ms", "WAITS"],
        ["s-1", "decode", "12", "40/64", "14.1", "250.00", "31.00", "-"],
        ["s-2", "queued", "9", "0/64", "0.0", "-", "-", "2", "for", "8s:", "1", "before", "it", "in", "the", "queue"],
    ]


def test_a_session_that_ended_says_how_and_after_how_long() -> None:
    done = SessionStatus("s-3", "done", 12, 64, 64, 0.25, 14.06, 4.56, 0.031, finish_reason="length")
    failed = SessionStatus("s-4", "failed", 12, 1, 64, 0.25, 0.0, 0.5, finish_reason="error", why="w2 was lost")
    assert rows(finished=(failed, done)) == [
        ["SESSION", "STATE", "PROMPT", "OUT", "TOK/S", "TTFT", "ms", "P95", "ms", "END"],
        ["s-4", "failed", "12", "1/64", "0.0", "250.00", "-", "0.5s", "error:", "w2", "was", "lost"],
        ["s-3", "done", "12", "64/64", "14.1", "250.00", "31.00", "4.6s", "length"],
    ]
    assert rows() == []


def test_the_dtypes_and_the_grade_of_identity_are_said_in_text_and_json() -> None:
    status = frames.status(precision=Precision("bfloat16", "float32", 29_000_000_000), identity=Identity.SAME_TOKENS)
    lines = _text(status).splitlines()
    assert "weights: stored as bfloat16, computed as float32: `--dtype bfloat16` halves 29.0 GB" in lines
    assert any(line.startswith("identity: grade 1, greedy answers have the tokens of a single process") for line in lines)
    document = _document(status)
    assert document["precision"]["text"] == status.model.precision.sentence and document["precision"]["computed_dtype"] == "float32"
    assert (document["identity"], document["identity_text"]) == ("1", Identity.SAME_TOKENS.sentence)


def test_the_document_keeps_its_names_whatever_holds_the_values() -> None:
    """Scripts read these; in the program they belong to values of their own (`status.speed`, `node.gauges`)."""
    document = _document(frames.status(latest=(frames.status().sessions[0],), mode="suggest", suggestion_id=7, num_unacknowledged=2))
    cluster = (
        "cluster_id phase detail failure plan_version strategy num_workers_expected stages sessions workers uptime_s identity identity_text"
    )
    model = "model random_weights has_tokenizer num_items context_tokens precision stand_in_tokenizer tokenizer_source"
    figures = "tokens_per_s step_p50_s step_p95_s predicted_step_s predicted_bottleneck_s num_sessions_done num_sessions_failed finished"
    rest = "identity identity_text adaptation_mode suggestion_id acknowledged_sequence num_unacknowledged"
    window = "window_s newest_s entry_hop_s expected_entry_s expected_step_s work prefix_cache speculation coordinator outlook troubles"
    assert document.keys() == set(f"{cluster} {model} {figures} {rest} {window}".split())
    assert document["prefix_cache"]["hit_rate"] == 0.0 and document["speculation"]["num_proposed"] == 0
    assert not {"prefix_cache", "speculation"} & document["work"].keys()
    assert (document["model"], document["num_items"], document["tokens_per_s"]) == ("gpt2", 14, 84.7)
    assert (document["adaptation_mode"], document["suggestion_id"], document["num_unacknowledged"]) == ("suggest", 7, 2)
    assert (document["num_sessions_done"], len(document["finished"])) == (3, 1)
    node = "worker_id pid host address device state detail progress start stop memory_bytes memory_limit_bytes kv_budget_bytes"
    gauges = "resident_bytes kv_used_bytes cpu_utilisation queue_depth gpu_utilisation gpu_temperature_c cpu_temperature_c"
    assert document["workers"][0].keys() == set(f"{node} {gauges} heartbeat_age_s is_drained runtime_bytes machine core_wait".split())


def test_where_nothing_stands_out_no_figure_is_made_up() -> None:
    assert _nothing(frames.status()) == "nothing stands out: serving, 84.7 tokens/s, a step takes 23.9 ms"
    idle = frames.status(sessions=(), tokens_per_s=0.0, step_p50_s=0.0)
    assert _nothing(idle) == "nothing stands out: serving, no session runs"

"""Values and messages: every field has its counterpart, and every value survives the way there and back."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import NAME_PATTERN, InvalidInput
from engine.data.generation import GenerateRequest, Logprobs, PromptMode, Segment, TokenChunk, TokenLogprob, Used
from engine.data.measured_link import MeasuredLink
from engine.data.model import ModelRef
from engine.data.plan import NodeSpec, Plan, Stage
from engine.data.sampling import LogitBias, Sampling, SamplingRequest
from engine.data.status import (
    AdaptationState,
    Alarms,
    ClusterStatus,
    CoordinatorGauges,
    EndedSessions,
    Event,
    Gauges,
    MachineGauges,
    ModelStatus,
    NodeState,
    NodeStatus,
    Outlook,
    Phase,
    SessionStatus,
    Severity,
    Speed,
    StageStatus,
    Trouble,
    Work,
)
from engine.data.watch_frame import WatchFrame
from engine.service import wire
from engine.service.incoming import checked
from protos import noodle_pb2 as pb

PAIRS = [
    (AdaptationState, pb.AdaptationState),
    (Alarms, pb.Alarms),
    (ClusterStatus, pb.ClusterStatus),
    (EndedSessions, pb.EndedSessions),
    (Event, pb.Event),
    (CoordinatorGauges, pb.CoordinatorGauges),
    (Gauges, pb.Gauges),
    (MachineGauges, pb.MachineGauges),
    (Outlook, pb.Outlook),
    (Trouble, pb.Trouble),
    (Work, pb.Work),
    (ModelRef, pb.ModelRef),
    (ModelStatus, pb.ModelStatus),
    (NodeSpec, pb.NodeSpec),
    (NodeStatus, pb.NodeStatus),
    (Plan, pb.Plan),
    (LogitBias, pb.LogitBias),
    (Logprobs, pb.Logprobs),
    (Sampling, pb.Sampling),
    (SamplingRequest, pb.Sampling),
    (TokenLogprob, pb.TokenLogprob),
    (Used, pb.Used),
    (SessionStatus, pb.SessionStatus),
    (Speed, pb.Speed),
    (Stage, pb.Stage),
    (StageStatus, pb.StageStatus),
    (WatchFrame, pb.WatchFrame),
    (MeasuredLink, pb.MeasuredLink),
]
ids = st.integers(-(2**31), 2**31 - 1)
token_ids = st.integers(0, 2**31 - 1)
names = st.from_regex(NAME_PATTERN, fullmatch=True)


def names_of(value: type) -> st.SearchStrategy[str]:
    return st.sampled_from([f.name for f in dataclasses.fields(value) if f.name != "logprobs"])  # which top_logprobs need


samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 1000),
    top_p=st.floats(0.01, 1),
    repetition_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 2**63 - 1),
    min_p=st.floats(0, 1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.lists(st.builds(LogitBias, token_ids, st.floats(-100, 100)), max_size=4, unique_by=lambda b: b.token_id).map(tuple),
    min_tokens=st.integers(0, 4),
    stop_token_ids=st.lists(token_ids, max_size=4).map(tuple),
    logprobs=st.just(True),
    top_logprobs=st.integers(0, 20),
)
said = samplings.map(lambda s: {f.name: getattr(s, f.name) for f in dataclasses.fields(s)})
asked = st.builds(
    lambda all_said, left_open: SamplingRequest(**{k: v for k, v in all_said.items() if k not in left_open}),
    said,
    st.sets(names_of(Sampling)),
)
entries = st.builds(TokenLogprob, token_ids, st.floats(-9999, 0), st.binary(max_size=9))
reports = st.builds(Logprobs, entries, st.lists(entries, max_size=20).map(tuple))
requests = st.builds(
    GenerateRequest,
    prompt=st.text(),
    max_new_tokens=st.integers(4, 9),
    sampling=asked,
    stop=st.lists(st.text(min_size=1, max_size=9), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    mode=st.sampled_from(PromptMode),
) | st.builds(
    GenerateRequest,
    messages=st.text(min_size=1),
    tools=st.text(),
    chat_template_kwargs=st.text(),
    add_generation_prompt=st.booleans(),
    sampling=asked,
)


@pytest.mark.parametrize(("value", "message"), PAIRS)
def test_every_field_has_its_counterpart(value: type, message: type) -> None:
    assert {f.name for f in dataclasses.fields(value)} == {f.name for f in message.DESCRIPTOR.fields}


@settings(max_examples=200)
@given(st.builds(Event, st.integers(0, 2**40), st.floats(0, 1e12), st.sampled_from(Severity), names, names, st.text()))
def test_events_survive_the_wire(event: Event) -> None:
    raw = wire.to_message(event, pb.Event()).SerializeToString()
    assert wire.from_message(Event, pb.Event.FromString(raw)) == event


@settings(max_examples=200)
@given(names, st.integers(0, 9), st.integers(0, 1000), st.lists(ids, max_size=9), st.none() | st.integers(0, 99), st.none() | samplings)
def test_segments_survive_the_wire(
    session_id: str, epoch: int, position: int, tokens: list[int], sample_index: int | None, sampling: Sampling | None
) -> None:
    reserve = 77 if sampling is not None else 0
    segment = Segment(session_id, epoch, position, tuple(tokens), sample_index, sampling, reserve)
    raw = wire.segment_to_message(segment).SerializeToString()
    assert wire.segment_from_message(pb.Segment.FromString(raw)) == segment


@settings(max_examples=200)
@given(requests)
def test_requests_survive_the_wire_and_what_is_left_open_stays_open(request: GenerateRequest) -> None:
    raw = wire.request_to_message(request).SerializeToString()
    assert wire.request_from_message(checked(pb.GenerateRequest.FromString(raw))) == request


@settings(max_examples=200)
@given(reports | st.none(), st.none() | st.builds(Used, samplings, st.text(), st.lists(st.text(), max_size=3).map(tuple)))
def test_chunks_survive_the_wire(logprobs: Logprobs | None, used: Used | None) -> None:
    message = pb.TokenChunk(session_id="s-1", index=3, token_id=4, text="x")
    if logprobs is not None:
        wire.to_message(logprobs, message.logprobs)
    if used is not None:
        wire.to_message(used, message.used)
    back = wire.chunk_from_message(checked(pb.TokenChunk.FromString(message.SerializeToString())))
    assert back == TokenChunk("s-1", 3, 4, "x", logprobs=logprobs, used=used)


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="mode 'loud' is not allowed: use raw, auto, chat"):
        wire.request_from_message(pb.GenerateRequest(prompt="x", max_new_tokens=1, mode="loud"))


@settings(max_examples=200)
@given(st.none() | st.integers(0, 2**40))
def test_absent_and_zero_are_different(seed: int | None) -> None:
    ref = ModelRef("gpt2", seed)
    assert wire.from_message(ModelRef, wire.to_message(ref, pb.ModelRef())) == ref


def test_a_status_with_nodes_and_stages_survives_the_wire() -> None:
    gauges = Gauges(1, 3, 0.5, 2, None, 61.0)
    node = NodeStatus("w1", 7, "host", "127.0.0.1:1", "cpu", NodeState.SUSPECT, "late", -1.0, 0, 3, 2, 4, 0.25, gauges)
    stage = StageStatus("w1", 0, 3, 0.1, 0.2, 0.3, 0.0, 0.001, 5, (0.1, 0.0, 0.2))
    session = SessionStatus("s-1", "decode", 5, 2, 10, 0.1, 9.5, 1.5, 0.03, 2, 1.25, "KV budget", "length")
    status = ClusterStatus(
        cluster_id="c",
        phase=Phase.SERVING,
        detail="",
        model=ModelStatus("gpt2", True, False, 3, 1024, tokenizer_source="vocab.json"),
        plan_version=4,
        strategy="balanced",
        num_workers_expected=1,
        nodes=(node,),
        stages=(stage,),
        sessions=(session,),
        speed=Speed(9.0, 0.1, 0.2, 0.3, 0.4),
        ended=EndedSessions(1, 2, (session,)),
        uptime_s=3.5,
        failure="f",
        adaptation=AdaptationState("auto", 7),
        alarms=Alarms(5, 6),
    )
    raw = wire.to_message(status, pb.ClusterStatus()).SerializeToString()
    back = wire.from_message(ClusterStatus, pb.ClusterStatus.FromString(raw))
    assert back == status and back.nodes[0].state is NodeState.SUSPECT


def test_a_request_is_validated_when_it_arrives() -> None:
    message = pb.GenerateRequest(prompt_ids=[1], max_new_tokens=4, sampling=pb.Sampling(temperature=-1, top_p=1, repetition_penalty=1))
    with pytest.raises(InvalidInput, match=r"temperature -1\.0"):
        wire.request_from_message(message)

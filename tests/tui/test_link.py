"""The background link against a real gRPC server: frames, loss, return, answers; errors become messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from engine.data.errors import Refused
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.version import PROTOCOL_VERSION, Version, own_version
from engine.service import client
from engine.service.local import LocalCluster
from engine.service.local_options import local_options
from engine.service.trust.options import AccessOptions
from noodle_tui.changes.actions import ACTIONS, arguments_of
from noodle_tui.cluster import backoff
from noodle_tui.cluster import link as link_module
from noodle_tui.cluster.link import Link, boot_sentence
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Preview
from noodle_tui.options import Options
from tests.tui import frames
from tests.tui.fake_coordinator import FakeCoordinator


@pytest.fixture()
def fake() -> Iterator[FakeCoordinator]:
    with FakeCoordinator() as coordinator:
        yield coordinator


class Inbox:
    """What the link posted, and a way to wait for more."""

    def __init__(self) -> None:
        self.messages: list[m.Message] = []
        self._arrived = asyncio.Event()

    def post(self, message: m.Message) -> None:
        self.messages.append(message)
        self._arrived.set()

    def of(self, kind: type) -> list[m.Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()


def run(options: Options | str, test: Callable[[Link, Inbox], Awaitable[None]]) -> Inbox:
    """Run the link's task, with options or to an address, while a test's coroutine looks at what it posts."""

    async def session() -> Inbox:
        inbox = Inbox()
        link = Link(options if isinstance(options, Options) else Options(options), inbox.post)
        task = asyncio.create_task(link.run())
        try:
            await test(link, inbox)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return inbox

    return asyncio.run(session())


def test_frames_arrive_as_the_coordinator_says(fake: FakeCoordinator) -> None:
    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        fake.publish(frames.frame(frames.status(plan_version=15)))
        await inbox.wait_for(lambda: inbox.of(m.FrameArrived)[-1].frame.status.plan_version == 15)  # type: ignore[union-attr]

    assert isinstance(run(fake.address, test).messages[0], m.Dialling)


def test_what_is_shown_to_other_clusters_is_not_shown_to_an_embedded_one(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as certificates from the environment: it speaks no TLS, and gave this user a token of its own."""

    async def start(self: LocalCluster) -> str:
        return fake.address

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived) or inbox.of(m.LinkLost)))
        assert not inbox.of(m.LinkLost)

    monkeypatch.setattr(LocalCluster, "start", start)
    fake.publish(frames.frame(frames.status()))
    run(Options(access=AccessOptions(tls=True)), test)


def test_loss_and_return(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "delay_s", lambda num_failures, chance: 0.05)

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        await asyncio.to_thread(fake.stop)
        await inbox.wait_for(lambda: len(inbox.of(m.LinkLost)) >= 2)
        num_frames = len(inbox.of(m.FrameArrived))
        await asyncio.to_thread(fake.start)
        await inbox.wait_for(lambda: len(inbox.of(m.FrameArrived)) > num_frames)

    lost = run(fake.address, test).of(m.LinkLost)
    assert all(fake.address in message.error for message in lost[1:])  # type: ignore[union-attr]


def test_the_retry_key_does_not_wait_for_the_countdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "delay_s", lambda num_failures, chance: 3600.0)

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: len(inbox.of(m.LinkLost)) == 1)
        link.retry_now()
        await inbox.wait_for(lambda: len(inbox.of(m.LinkLost)) == 2)

    assert len(run("127.0.0.1:1", test).of(m.Dialling)) == 2


def test_retries_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(link_module, "delay_s", lambda n, chance: asked.append(n) or 0.0)

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: len(inbox.of(m.LinkLost)) >= 4)

    inbox = run("127.0.0.1:1", test)
    assert asked[:4] == [1, 2, 3, 4]
    (told,) = inbox.of(m.LogsArrived)
    assert "refused" in told.lines[0].text and told.lines[0].level == "WARN", "its own words, once"  # type: ignore[union-attr]
    assert backoff.delay_s(4, 0.5) == 8


def test_a_silent_port_is_not_a_coordinator(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_FRAME_TIMEOUT_S", 0.2)
    fake.control.silent = True

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.LinkLost)))

    assert "has sent nothing" in run(fake.address, test).of(m.LinkLost)[0].error  # type: ignore[union-attr]


def test_an_answer_streams_in_order_and_ends(fake: FakeCoordinator) -> None:
    fake.control.chunks = (*(frames.chunk(i) for i in range(5)), frames.chunk(-1, "", finish_reason=FinishReason.LENGTH))

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        await link.generate(7, GenerateRequest("hi", max_new_tokens=5))

    inbox = run(fake.address, test)
    assert [message.chunk.index for message in inbox.of(m.TokenArrived)] == [0, 1, 2, 3, 4, -1]  # type: ignore[union-attr]
    assert inbox.of(m.SessionEnded) == [m.SessionEnded(7)]


def test_stopping_an_answer_cancels_it_on_the_cluster(fake: FakeCoordinator) -> None:
    fake.control.chunks, fake.control.token_interval_s = tuple(frames.chunk(i) for i in range(1000)), 0.01

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        task = asyncio.create_task(link.generate(1, GenerateRequest("hi")))
        await inbox.wait_for(lambda: bool(inbox.of(m.TokenArrived)))
        task.cancel()
        await inbox.wait_for(lambda: bool(inbox.of(m.SessionEnded)))
        assert await asyncio.to_thread(fake.control.cancelled.wait, 10)

    assert run(fake.address, test).of(m.SessionEnded) == [m.SessionEnded(1, cancelled=True)]


def test_an_answer_that_loses_its_coordinator_ends_with_a_sentence(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RESUME_LIMIT_S", 1.0)
    fake.control.chunks, fake.control.token_interval_s = tuple(frames.chunk(i) for i in range(1000)), 0.01

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        task = asyncio.create_task(link.generate(1, GenerateRequest("hi")))
        await inbox.wait_for(lambda: bool(inbox.of(m.TokenArrived)))
        await asyncio.to_thread(fake.stop)
        await task

    ended = run(fake.address, test).of(m.SessionEnded)[0]
    assert isinstance(ended, m.SessionEnded) and ended.error and not ended.cancelled


def test_a_prompt_without_a_connection_is_an_error_message() -> None:
    async def test(link: Link, inbox: Inbox) -> None:
        await link.generate(1, GenerateRequest("hi"))

    assert "not connected" in run("127.0.0.1:1", test).of(m.SessionEnded)[0].error  # type: ignore[union-attr]


def test_an_address_that_makes_no_sense_is_a_message_too() -> None:
    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.LinkLost)))

    assert "HOST:PORT" in run("h:0", test).of(m.LinkLost)[0].error  # type: ignore[union-attr]


def test_the_start_is_announced_in_the_users_terms() -> None:
    assert "2 worker processes for m with random weights (seed 7)" in boot_sentence(
        local_options(model="m", num_workers=2, random_weights=7)
    )
    assert "3 worker processes for gpt2 ..." in boot_sentence(local_options())


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Version("9.9.0", PROTOCOL_VERSION + 1), ("9.9.0 (protocol", "Bring this console up to date")),
        (Version("0.0.1", PROTOCOL_VERSION - 1), ("0.0.1 (protocol", "Bring the coordinator at")),
        (None, ("of a version that it cannot tell", "Bring the coordinator at")),
    ],
)
def test_another_protocol_is_said_with_both_versions_and_nothing_is_watched(
    fake: FakeCoordinator, other: Version | None, expected: tuple[str, str]
) -> None:
    fake.control.version = other

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.LinkLost)))

    inbox = run(fake.address, test)
    (lost,) = inbox.of(m.LinkLost)
    assert lost.mismatch and all(text in lost.error for text in (*expected, f"this console is {own_version()}", "ctx HOST:PORT"))  # type: ignore[union-attr]
    assert inbox.of(m.FrameArrived) == []


def test_a_coordinator_that_was_brought_up_to_date_is_noticed(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "delay_s", lambda num_failures, chance: 0.05)
    fake.control.version = Version("0.0.1", PROTOCOL_VERSION - 1)

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.LinkLost)))
        fake.control.version = Version("0.0.2", PROTOCOL_VERSION)
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))

    (known,) = run(fake.address, test).of(m.PeerKnown)
    assert known == m.PeerKnown(own_version().package_version, "0.0.2")


def test_two_consoles_at_once_do_not_overwrite_each_other(fake: FakeCoordinator) -> None:
    """The real client and wire: what a console confirms carries the version that its preview was made for."""

    async def test(link: Link, inbox: Inbox) -> None:
        await inbox.wait_for(lambda: bool(inbox.of(m.FrameArrived)))
        preview = Preview("cluster.drain", "gpu-a", 14, plan=frames.plan())
        for action in ("cluster.drain", "cluster.cancel", "cluster.apply", "cluster.rebalance", "cluster.rollback"):
            confirmed = replace(preview, action=action)
            with pytest.raises(Refused, match="#15 now, the request was made for #14"):
                await link.act(ACTIONS[action].call, arguments_of(confirmed))
        with pytest.raises(Refused, match="adaptation is auto now, the request was made when it was off"):
            await link.act("set_adaptation", arguments_of(replace(preview, action="cluster.auto", target="suggest", mode="off")))

    fake.publish(frames.frame(frames.status(plan_version=15, mode="auto")))
    run(fake.address, test)

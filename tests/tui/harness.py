"""The app in a headless terminal with a link that the test plays: what the tests of keys and screens share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from engine.data.errors import InvalidInput, NoodleError, Refused
from engine.data.generation import GenerateRequest
from engine.data.plan import Plan, Stage
from engine.service.client import ProfileProgress
from noodle_tui.app import ConsoleApp
from noodle_tui.config import Config
from noodle_tui.core import messages as m
from noodle_tui.core.reading import READING_S
from noodle_tui.glyphs import ASCII, Glyphs
from noodle_tui.options import Options
from noodle_tui.themes import load_theme
from tests.tui import frames

Test = Callable[[ConsoleApp, Pilot[None]], Awaitable[None]]


class FakeLink:
    """Records what the console asks of the cluster; the test plays the cluster."""

    owns_cluster = False

    def __init__(self, options: Options, post: Callable[[m.Message], None]) -> None:
        self.post = post
        self.requests: list[GenerateRequest] = []
        self.plans: dict[str, Plan | NoodleError] = {}
        self.strategies: list[str] = []
        self.calls: list[tuple[object, ...]] = []
        self.questions: list[tuple[object, ...]] = []
        self.answers: dict[str, object] = {"estimate_move": frames.move(), "moves": (frames.moved(),), "lines": ()}
        self.refuses = ""
        self.present: Plan | None = frames.present()  # what the stages that serve would take now
        self.released = asyncio.Event()
        self.released.set()
        self.num_retries = self.num_stops = self.num_cancelled = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def plan(self, strategy: str, stages: Sequence[Stage] = (), without: Sequence[str] = (), including: Sequence[str] = ()) -> Plan:
        self.strategies.append(strategy)
        if stages and tuple(stages) == frames.present().stages and self.present is not None:
            return self.present
        if stages:
            return frames.plan("given", (0, *(stage.stop for stage in stages)))
        found = self.plans.get(f"without {' '.join(without)}" if without else f"including {' '.join(including)}" if including else strategy)
        if isinstance(found, Plan):
            return found
        raise found or InvalidInput(f"strategy {strategy!r} is unknown: choose one of balanced, cost")

    async def ask(self, call: str, *arguments: object) -> Any:
        self.questions.append((call, *arguments))
        found = self.answers.get(call)
        if found is None or isinstance(found, NoodleError):
            raise found or Refused(f"{call} has no answer in this test")
        return found

    async def act(self, call: str, arguments: tuple[object, ...]) -> object:
        self.calls.append((call, *arguments))
        await self.released.wait()
        if self.refuses:
            raise Refused(self.refuses)
        return frames.plan(plan_version=15) if call in ("apply", "drain", "undrain") else None

    async def profile(self, worker_id: str) -> AsyncIterator[ProfileProgress]:
        self.calls.append(("profile", worker_id))
        yield ProfileProgress(0.25, "round 1: decode ctx 64")
        await self.released.wait()
        if self.refuses:
            raise Refused(self.refuses)
        yield ProfileProgress(1.0, "", (Path(__file__).parent / "profile.json").read_text())

    async def generate(self, number: int, request: GenerateRequest, without_template: GenerateRequest | None = None) -> None:
        self.requests.append(request)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    def retry_now(self) -> None:
        self.num_retries += 1

    async def stop(self) -> None:
        self.num_stops += 1

    def kill(self) -> None:
        pass


class Clock:
    """The time of the machine, and what a test lets go by."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.passed_s


def run(
    test: Test, size: tuple[int, int] = (80, 24), glyphs: Glyphs = ASCII, *, config: Config | None = None, **options: Any
) -> ConsoleApp:
    """Run a test's coroutine inside the app."""

    async def session() -> ConsoleApp:
        app = ConsoleApp(
            Options(**{"connect": "127.0.0.1:1", **options}),
            load_theme("noodle-dark"),
            glyphs,
            make_link=FakeLink,
            config=config,
            clock=Clock(),
        )
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await test(app, pilot)
        return app

    return asyncio.run(session())


def link_of(app: ConsoleApp) -> FakeLink:
    return app.link  # type: ignore[return-value]


def shown(app: ConsoleApp) -> str:
    """The screen as text, from what the compositor would write."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


async def live(app: ConsoleApp, pilot: Pilot[None], **changes: Any) -> None:
    """One frame arrives and is painted."""
    app.dispatch(m.FrameArrived(frames.frame(frames.status(**changes), frames.event(1, "first event")), time.time()))
    app.paint()
    await pilot.pause()


async def finished(app: ConsoleApp, pilot: Pilot[None], *groups: str) -> None:
    """Until what was asked of the cluster or of the disk has answered, and is painted."""
    for worker in [worker for worker in app.workers if worker.group in groups]:
        with contextlib.suppress(WorkerCancelled):  # a later one took its place
            await worker.wait()
    await pilot.pause()
    app.paint()
    await pilot.pause()


async def agree(app: ConsoleApp, pilot: Pilot[None], *before: str) -> None:
    """Keys, then time to read the dialog, then `y`."""
    await pilot.press(*before)
    app.paint()
    pass_by(app, READING_S)
    await pilot.press("y")


def pass_by(app: ConsoleApp, seconds: float) -> None:
    """The app's clock goes on."""
    assert isinstance(app.clock, Clock)
    app.clock.passed_s += seconds

"""One thread that runs jobs in the order in which they were put, so that what only it touches needs no lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import torch

from engine.model.hardware.devices import on_device
from engine.service.worker.handover.inlet import sleep_exactly

T = TypeVar("T")


AGAIN_S = 1e-4


class ComputeThread:
    """`between` is called before each job is waited for; it says whether to be called again soon if none comes."""

    def __init__(self, device: str, between: Callable[[], bool]) -> None:
        self._device, self._between = device, between
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin; `between` may be called from now on."""
        threading.Thread(target=self._run, name="stage", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether no job waits."""
        return self._jobs.empty()

    def put(self, job: Callable[[], object]) -> None:
        """A job that raises nothing."""
        self._jobs.put(job)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run any function."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():  # whoever asked went away before it began
                return
            try:
                future.set_result(function())
            except BaseException as e:
                future.set_exception(e)

        self._jobs.put(job)
        return future

    def close(self) -> None:
        """End after the jobs that were put."""
        self._jobs.put(None)

    def _run(self) -> None:
        sleep_exactly()
        with on_device(self._device), torch.inference_mode():
            while (job := self._next()) is not None:
                job()

    def _next(self) -> Callable[[], object] | None:
        while True:
            try:
                return self._jobs.get(timeout=AGAIN_S if self._between() else None)
            except queue.Empty:
                continue

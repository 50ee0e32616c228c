"""The memory that a worker offers to the next stages of its plans: of the one that serves, and of the one that is prepared."""

from __future__ import annotations

from engine.model.hardware.devices import on_device
from engine.model.running.stage import StageModel
from engine.service.worker.handover.outlet import Giving, Outlet


class Outlets:
    """By plan version. `make` may be called from any thread, the rest on the compute thread."""

    def __init__(self, device: str, worker_id: str) -> None:
        self._device, self._worker_id = device, worker_id
        self._held: dict[int, Outlet] = {}

    def make(self, model: StageModel) -> Outlet | None:
        """For a stage that is to be held; None where no memory can be shared."""
        with on_device(self._device):
            return Outlet.make(self._device, model.hidden_size, model.dtype, self.name_of(model))

    def hold(self, plan_version: int, outlet: Outlet) -> None:
        self._held[plan_version] = outlet

    def begin(self, plan_version: int, num_tokens: int, model: StageModel, may_be_late: bool) -> Giving | None:
        """Room for a step's output; None: it takes the stream."""
        outlet = self._held.get(plan_version)
        return None if outlet is None else outlet.begin((num_tokens, model.hidden_size), model.dtype, may_be_late)

    def tell_times(self) -> float:
        """Tell the readers how long steps were computed that have ended since; returns those seconds together."""
        return sum(seconds for outlet in self._held.values() for seconds in outlet.tell_times())

    @property
    def has_untold(self) -> bool:
        """Whether a step is on its way whose time is not told yet."""
        return any(outlet.has_untold for outlet in self._held.values())

    def drop(self, plan_version: int) -> None:
        """No step of that plan is handed on any more."""
        if (outlet := self._held.pop(plan_version, None)) is not None:
            outlet.close()

    def name_of(self, model: StageModel) -> str:
        """How messages name the stage."""
        return f"stage {model.start}-{model.stop - 1} on {self._worker_id}"

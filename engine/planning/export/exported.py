"""A plan in another engine's terms: what to set, what to run on each node, and what of the plan that engine cannot do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_drawing import plain
from engine.planning.export.shares import Share, shares_of


@dataclass(frozen=True, slots=True)
class Command:
    """One command line, for the machine of that node."""

    node_id: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items()), *map(shlex.quote, self.words)])


@dataclass(frozen=True, slots=True)
class Exported:
    """`settings` are the engine's own names with their values, `text` is what a file or a shell takes of them."""

    engine: str
    settings: Mapping[str, Any]
    text: str
    shares: tuple[Share, ...]
    commands: tuple[Command, ...] = ()
    not_expressed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is exported: the plan, the model as the other engine is to load it, and the devices that nodes are called there.

    `modules[i]` are the paths of item i's modules in the transformers model, () where nobody knows them.
    """

    plan: PartitionPlan
    model: str = ""
    devices: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[tuple[str, ...], ...] = ()

    @property
    def shares(self) -> tuple[Share, ...]:
        return shares_of(self.plan)

    @property
    def model_name(self) -> str:
        return self.model or "MODEL"

    @property
    def common(self) -> tuple[str, ...]:
        """What has to be said of every engine."""
        said = [] if self.model else ["the model is not known here: put its name where MODEL stands"]
        first, last = self.shares[0], self.shares[-1]
        if not (first.has_embedding and last.has_head):
            said.append("the plan's items are blocks alone: every engine adds the embedding to the first stage and the head to the last")
        return tuple(said)


def in_the_plan(plan: PartitionPlan) -> str:
    """What the plan expects, for a sentence on what another engine makes of it."""
    return f"the plan's {1 / plan.period_s:.4g} tokens/s at {plan.in_flight} in flight" if plan.period_s > 0 else "the plan's speed"


def commands_text(commands: Sequence[Command]) -> str:
    """Lines for a shell, each under a comment that names its node."""
    return "\n".join(f"# on {plain(command.node_id)}\n{command}" for command in commands)

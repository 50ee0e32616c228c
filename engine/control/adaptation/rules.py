"""Does a migration pay? The rules between a proposal and a verdict; a pure function of figures.

Keeping a plan that is no longer the best costs its regret, moving costs the migration, and nobody knows how long a change
lasts: the ski-rental problem. Moving when the regret so far reaches a share w of the cost spends at most 1 + 1/w times what
a clairvoyant would on a change that ends at the worst moment, and 1 + w times on one that stays. Where nothing moved for ten
minutes, what is sure to have changed is likely to stay, and w is 1/10: to be wrong costs one migration in ten minutes. After
that w is 1/2, doubled by each migration of the last ten minutes, up to 2, where going to and fro forever costs at most three
times the optimum, which is the best that is possible between two states (Borodin, Linial, Saks 1992: 2n - 1 for n states).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.control.adaptation.history import Verdict
from engine.control.adaptation.proposal import Proposal
from engine.control.adaptation.watching.gates import Gates, TriggerKind
from engine.data.errors import InvalidInput

_URGENT = (TriggerKind.FAST, TriggerKind.MEMORY)


class Mode(StrEnum):
    AUTO = "auto"
    SUGGEST = "suggest"  # the operator confirms
    OFF = "off"


def check_mode(name: str) -> Mode:
    """The mode of that name; raises InvalidInput listing them."""
    if name not in set(Mode):
        raise InvalidInput(f"mode {name[:80]!r} is unknown: choose one of {', '.join(Mode)}")
    return Mode(name)


@dataclass(frozen=True, slots=True)
class AdaptationSettings:
    """Limits of the decision; times in seconds, shares as fractions of 1."""

    mode: Mode = Mode.AUTO
    gates: Gates = field(default_factory=Gates)
    min_gain: float = 0.05
    small_gain: float = 0.015  # below it nothing moves; from here to min_gain only against more regret
    first_regret_share: float = 0.1  # of a migration's cost, for the first migration in a while
    small_regret_share: float = 0.15  # the least for gains below min_gain
    regret_share: float = 0.5  # doubled by each recent migration
    max_regret_share: float = 2.0
    recent_s: float = 600.0  # so old is a migration that is recent
    cooldown_s: float = 10.0  # after a migration the next one takes max_regret_share at once
    probation_steps: int = 48
    carry_out_s: float = 120.0  # an ordered migration that is neither committed nor abandoned by then is given up


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at besides the proposal itself."""

    mode: Mode
    owed_s: float  # regret so far
    num_recent: int  # migrations within recent_s
    since_migration_s: float
    on_probation: bool
    tabu_s: float  # how long the candidate stays tabu
    doubtful: tuple[str, ...]  # nodes that may be changing right now
    model_error: float  # relative, of predicted periods
    level_error: float  # relative standard error of what is believed of the least certain stage
    sure_gain: float  # what remains of the gain if those errors all count against it


def required_regret_s(proposal: Proposal, now: Situation, settings: AdaptationSettings) -> float:
    """What staying must have cost before a move pays."""
    share = settings.regret_share * 2.0**now.num_recent if now.num_recent else settings.first_regret_share
    if proposal.gain < full_gain(now, settings):
        share = max(share, settings.small_regret_share)
    return min(settings.max_regret_share, share) * proposal.cost.cost_s


def full_gain(now: Situation, settings: AdaptationSettings) -> float:
    """The gain that is worth a move without further proof."""
    return max(settings.min_gain, 2.0 * now.model_error, 2.0 * now.level_error)


@dataclass(frozen=True, slots=True)
class Ruling:
    """`rule` names what decided; the reason says it with the figures that an operator would ask for."""

    verdict: Verdict
    rule: str
    reason: str


def judge(proposal: Proposal, now: Situation, settings: AdaptationSettings) -> Ruling:
    """The first rule that applies decides."""
    if not proposal.changes:
        return Ruling(Verdict.DECLINE, "best", "the plan is still the best placement")
    if proposal.forced and now.tabu_s > 0.0:
        return Ruling(Verdict.WAIT, "retry", f"this was tried and given up, next try in {now.tabu_s:.0f} s")
    if proposal.forced:
        return Ruling(Verdict.MIGRATE, "forced", "the running plan cannot stay")
    urgent = proposal.trigger.kind in _URGENT
    memory = proposal.trigger.kind is TriggerKind.MEMORY
    if not memory:
        if proposal.gain <= 0.0:
            return Ruling(Verdict.DECLINE, "best", "no placement that may be tried is faster")
        wanted = max(settings.small_gain, now.model_error / 2.0)
        if proposal.gain < wanted:
            return Ruling(Verdict.DECLINE, "gain", f"a gain of {100 * proposal.gain:.1f} % is below the {100 * wanted:.1f} % that it takes")
        if now.sure_gain <= 0.0:
            return Ruling(Verdict.WAIT, "unsure", f"the times are known to {100 * now.level_error:.0f} %, too little to be sure of a gain")
    if now.tabu_s > 0.0:
        return Ruling(Verdict.DECLINE, "tabu", f"this placement failed before and is not tried again for {now.tabu_s:.0f} s")
    if now.mode is Mode.OFF:
        return Ruling(Verdict.DECLINE, "off", "adaptation is off")
    if now.on_probation:
        return Ruling(Verdict.WAIT, "probation", "the last migration is still on probation")
    cooling = now.num_recent > 0 and now.since_migration_s < settings.cooldown_s and not urgent
    if cooling and now.owed_s < settings.max_regret_share * proposal.cost.cost_s:
        return Ruling(Verdict.WAIT, "cooldown", f"the cooldown after a migration lasts {settings.cooldown_s:.0f} s")
    if now.doubtful and not urgent:
        return Ruling(Verdict.WAIT, "doubt", f"{' and '.join(now.doubtful)} may be changing right now")
    required_s = required_regret_s(proposal, now, settings)
    if not memory and now.owed_s < required_s:
        return Ruling(Verdict.WAIT, "regret", f"not worth it until it has cost {required_s:.1f} s")
    if now.mode is Mode.SUGGEST:
        return Ruling(Verdict.SUGGEST, "confirm", "confirm to move")
    return Ruling(Verdict.MIGRATE, "pays", "before its memory is full" if memory else f"it has cost {now.owed_s:.1f} s so far")

"""AdaptivePlanner: decides by itself, without flapping, when a move of layers pays. Pure: no clock, no randomness.

How a cluster uses it:

    planner = AdaptivePlanner(AdaptationSettings(mode=Mode.AUTO))
    planner.observe(StepSample(plan_version, Point(DECODE, 1, context, batch), timings, even_hops(timings, step_s)), now_s)
                                                 # for every step that was reported without an error, of any plan
    planner.observe_memory(MemorySample(...), now_s)                                     # for every heartbeat
    for decision in planner.tick(AdaptationView(plan, problem, strategy, in_flight, kv_tokens, cost_model), now_s):
        record(decision.sentence)                # every decision is an event for the console
        if decision.orders_migration:            # PREPARE decision.plan in the background, then COMMIT or abort:
            ...
    planner.committed(decision_id, now_s, pause_s=..., load_s=...)   # or planner.abandoned(decision_id, reason, now_s)
    planner.corrected(problem, now_s)            # for *every* plan the cluster makes: loss, join, drain, an operator's wish

`tick` is cheap when nothing changed, so call it with every tick of the cluster while it serves. `problem` holds the eligible
nodes with the item times as their workers measured them: nodes that are lost, failed or draining are left out, and a plan
that still names one is replaced at once in every mode. An ordered plan is recognised by its stages, so the cluster may give it
another version; a plan that appears in the view without an order is taken as given. In mode `suggest` a decision waits for
`confirm(decision_id, view, now_s)`, which returns the order. A node that is left out of the plan cannot be observed:
`stale_nodes` names those whose times are worth measuring again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.control.adaptation.case import Case
from engine.control.adaptation.cost import MigrationRates
from engine.control.adaptation.history import LOAD, Decision, History, Verdict
from engine.control.adaptation.orders import Orders
from engine.control.adaptation.proposal import Knowledge, Proposal, propose, sure_gain
from engine.control.adaptation.rules import AdaptationSettings, Mode, Ruling, Situation, judge
from engine.control.adaptation.watching.beliefs import Beliefs
from engine.control.adaptation.watching.gates import AdaptationTrigger, TriggerKind
from engine.control.adaptation.watching.problem import corrected, known_better, with_slower_links
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample
from engine.control.adaptation.watching.watch import Watch
from engine.control.sessions.served_load import Load
from engine.data.errors import Refused
from engine.planning.problem import Infeasible, Problem


class AdaptivePlanner:
    """One cluster's adaptation: observations in, decisions out, all of them kept in `history`."""

    def __init__(self, settings: AdaptationSettings | None = None) -> None:
        self.settings = settings or AdaptationSettings()
        self.mode = self.settings.mode
        self.history = History()
        self.rates = MigrationRates()
        self.watch = Watch(self.settings.gates, self.rates)
        self.case = Case()
        self.orders = Orders(self.settings)
        self._suggestion: Decision | None = None
        self._out: list[Decision] = []
        self._load: Load | None = None
        self._view: AdaptationView | None = None  # the newest
        self.num_loads = 0  # times that the load took another shape

    def suggestion_for(self, plan_version: int) -> Decision | None:
        """What the operator may confirm while that plan serves: a suggestion lapses with the plan that it was made for."""
        plan = self._suggestion.plan if self._suggestion else None
        return self._suggestion if plan is not None and plan.for_version == plan_version else None

    # ------------------------------------------------------------------------------------------ observations
    def observe(self, sample: StepSample, now_s: float) -> None:
        """One step's times; steps of a plan other than the one last seen by `tick` are dropped."""
        self.watch.metrics.add_step(sample)

    def observe_memory(self, sample: MemorySample, now_s: float) -> None:
        self.watch.metrics.add_memory(sample, now_s)

    # ------------------------------------------------------------------------------------------ decisions
    def tick(self, view: AdaptationView, now_s: float) -> list[Decision]:
        """Look at everything and decide; returns the new decisions, in order."""
        self._out, self._view = [], view
        self._follow(view, now_s)
        self._note_load(view, now_s)
        self.case.accrue(self.watch.metrics.num_decode_steps)
        trigger = self.watch.look(view, now_s)
        if trigger:
            self._propose(view, trigger, now_s)
        if self.orders.pending:
            if now_s - self.orders.pending.decision.at_s > self.settings.carry_out_s:
                self.abandoned(self.orders.pending.decision.decision_id, "it was not carried out in time", now_s)
            return self._out
        self._end_probation(view, now_s)
        if self.case.proposal and not self.orders.pending:
            self._rule(view, self.case.proposal, now_s)
        return self._out

    def confirm(self, decision_id: int, view: AdaptationView, now_s: float) -> Decision:
        """The operator agrees to a suggestion: the order to migrate. Raises Refused if neither it nor the same move is open any more."""
        open_ = self.suggestion_for(view.plan.plan_version)
        if open_ is None or not self._offers(decision_id):
            raise Refused(f"decision {decision_id} is not an open suggestion: the situation has changed, look at the history again")
        self._suggestion = None
        self.history.update(open_.decision_id, outcome="confirmed")
        order = self.history.repeat(open_, now_s, Verdict.MIGRATE, "confirmed by the operator")
        self.orders.give(order, view.plan, self.watch.beliefs)
        return order

    def _offers(self, decision_id: int) -> bool:
        """Whether a suggestion is the open one, or an earlier one of the same move that new measurements only renewed."""
        plan = self._suggestion.plan if self._suggestion else None
        same = (d for d in self.history if d.decision_id == decision_id and d.verdict is Verdict.SUGGEST)
        return any(d.plan is not None and plan is not None and d.plan.stages == plan.stages for d in same)

    def committed(self, decision_id: int, now_s: float, *, pause_s: float = 0.0, load_s: float = 0.0) -> Decision:
        """The migration was done: serving paused for `pause_s`, the new owners had loaded for `load_s`."""
        decision = self.history.get(decision_id)
        if decision.cost is not None:
            self.rates.learn(pause_s, decision.cost, load_s)
        return self.history.update(decision_id, outcome=f"done, paused {1e3 * pause_s:.0f} ms", realised_pause_s=pause_s)

    def abandoned(self, decision_id: int, reason: str, now_s: float) -> Decision:
        """The migration was given up and the old plan serves on; the placement is tabu unless there is no other."""
        decision = self.history.update(decision_id, outcome=f"abandoned: {reason}")
        if self.orders.give_up(decision_id, now_s):
            self.case.repeat()
            self.watch.look_again()
        return decision

    def set_mode(self, mode: Mode, now_s: float) -> Decision:
        """Switch live; an open suggestion lapses."""
        before, self.mode, self._suggestion = self.mode, mode, None
        self.case.repeat()
        return self.history.add(now_s, Verdict.NOTE, None, f"adaptation is {mode} now, before {before}")

    # ------------------------------------------------------------------------------------------ for every plan
    def corrected(self, problem: Problem, now_s: float) -> Problem:
        """`problem` with the times that nodes and links really take, and with nodes as slow as failed migrations found them.

        Where its times were estimated, what was seen narrows the band of plans made from it.
        """
        beliefs = self.watch.beliefs if self._view is None else self._believed(self._view)
        if self._view is not None:
            problem = known_better(problem, beliefs.known_within(self.watch.metrics, self._view.plan.stages))
        return corrected(with_slower_links(problem, beliefs.link_factors()), self.orders.tabu.cautious(beliefs.levels, now_s))

    def stale_nodes(self, view: AdaptationView, now_s: float) -> tuple[str, ...]:
        """Nodes outside the plan that were off when last seen; measuring them again shows whether they recovered."""
        return self.watch.stale_nodes(view, now_s)

    # ------------------------------------------------------------------------------------------ inside
    def _follow(self, view: AdaptationView, now_s: float) -> None:
        """Another plan runs than at the last tick: the ordered one, or one that somebody else made."""
        version = self.watch.metrics.plan_version
        if view.plan.plan_version == version:
            return
        if not self.orders.carried_out(view.plan, now_s) and version:
            self._say(now_s, Verdict.NOTE, None, f"plan #{view.plan.plan_version} was made by other hands")
        self.watch.start_plan(view, now_s)
        self.case.restart()
        self._suggestion = None

    def _believed(self, view: AdaptationView) -> Beliefs:
        """Of nodes at work what they showed, of those that rest no more than their neighbours show."""
        return self.watch.beliefs.with_neighbours(view.plan.stages, view.home)

    def _note_load(self, view: AdaptationView, now_s: float) -> None:
        """Say that the load has another shape, whatever follows from it."""
        load = view.law.load if view.law is not None else None
        if load is not None and self._load is not None and load != self._load:
            self.num_loads += 1
            trigger = AdaptationTrigger(TriggerKind.LOAD, "plan", f"the load is {load} after {self._load}")
            self._say(now_s, Verdict.NOTE, trigger, "the plan is looked at for it", rule=LOAD)
        self._load = load

    def _propose(self, view: AdaptationView, trigger: AdaptationTrigger, now_s: float) -> None:
        know = Knowledge(self._believed(view).ahead(self.watch.metrics), self.orders.tabu, self.rates, self.watch.room_bytes(view))
        self._suggestion = None
        standing = self.case.proposal
        if trigger.kind is TriggerKind.LOAD and standing and standing.changes:
            trigger = replace(standing.trigger, num_steps=0)  # the old reason under a new load
        try:
            self.case.take(propose(view, trigger, know, now_s))
        except Infeasible as e:
            self.case.take(None)
            self._say(now_s, Verdict.DECLINE, trigger, f"no other placement is possible: {e}", rule="none")

    def _rule(self, view: AdaptationView, proposal: Proposal, now_s: float) -> None:
        ruling = judge(proposal, self._situation(view, proposal, now_s), self.settings)
        if not self.case.is_news(ruling.verdict, ruling.rule):
            return
        if proposal.trigger.kind is TriggerKind.LOAD and ruling.verdict is Verdict.DECLINE:
            return
        decision = self._decided(view, proposal, ruling, now_s)
        if ruling.verdict is Verdict.MIGRATE:
            self.orders.give(decision, view.plan, self.watch.beliefs, is_ahead=self._goes_on(view, proposal))
        elif ruling.verdict is Verdict.SUGGEST:
            self._suggestion = decision

    def _situation(self, view: AdaptationView, proposal: Proposal, now_s: float) -> Situation:
        errors = self.watch.beliefs.errors(self.watch.metrics, view.plan.stages)
        return Situation(
            mode=self.mode,
            owed_s=self.case.owed_s,
            num_recent=0 if self._goes_on(view, proposal) else self.orders.num_recent(view.plan.stages, proposal.plan.stages, now_s),
            since_migration_s=self.orders.since_migration_s(now_s),
            on_probation=self.orders.probation is not None,
            tabu_s=self.orders.tabu.left_s(proposal.plan.stages, now_s),
            doubtful=self.watch.doubtful(view),
            model_error=self.orders.model_error,
            level_error=max(errors.values(), default=0.0),
            sure_gain=0.0 if proposal.before is None else sure_gain(proposal, view, self._believed(view), errors),
        )

    def _goes_on(self, view: AdaptationView, proposal: Proposal) -> bool:
        """Whether what the move follows has a direction: it gives to nodes that get faster, or takes from those that get slower."""
        held, wanted = ({s.node_id: s.num_items for s in stages} for stages in (view.plan.stages, proposal.plan.stages))
        return any((wanted.get(node_id, 0) - held[node_id]) * slope < 0.0 for node_id, slope in self.watch.trends(view).items())

    def _decided(self, view: AdaptationView, proposal: Proposal, ruling: Ruling, now_s: float) -> Decision:
        plan = proposal.plan.after(view.plan) if proposal.changes else None
        before_s = proposal.before.period_s if proposal.before else 0.0
        figures = {"cost": proposal.cost, "before_s": before_s, "predicted_s": proposal.after.period_s, "regret_s": self.case.owed_s}
        return self._say(now_s, ruling.verdict, proposal.trigger, ruling.reason, rule=ruling.rule, plan=plan, **figures)

    def _end_probation(self, view: AdaptationView, now_s: float) -> None:
        finding = self.orders.examine(view, self.watch, now_s)
        if finding is None:
            return
        self.history.update(finding.decision.decision_id, before_s=finding.before_s, realised_s=finding.measured_s)
        verdict = finding.verdict
        if verdict is Verdict.ROLLBACK and self.mode is not Mode.AUTO:
            verdict = Verdict.SUGGEST if self.mode is Mode.SUGGEST else Verdict.KEEP
        figures: dict[str, Any] = {"before_s": finding.before_s, "predicted_s": finding.measured_s}
        if finding.back:
            cost = self.rates.cost(view.problem.items, view.plan.stages, finding.back.stages, view.kv_tokens)
            figures = {"before_s": finding.measured_s, "predicted_s": finding.before_s, "cost": cost, "plan": finding.back}
        decision = self._say(now_s, verdict, finding.decision.trigger, finding.reason, **figures)
        if verdict is Verdict.ROLLBACK:
            self.orders.give(decision, view.plan, self.watch.beliefs)
        elif verdict is Verdict.SUGGEST:
            self._suggestion = decision

    def _say(self, now_s: float, verdict: Verdict, trigger: AdaptationTrigger | None, reason: str, **figures: Any) -> Decision:
        decision = self.history.add(now_s, verdict, trigger, reason, **figures)
        if decision.is_news:
            self._out.append(decision)
        return decision

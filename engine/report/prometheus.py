"""Figures in Prometheus' text format: a cluster's state for /metrics, and a profile for the node exporter's textfile folder.

Names from outside become label values: control characters are shown as escapes, long ones cut, the rest is escaped by
`prometheus_client`. This file knows no server and no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.data.status import ClusterStatus, Gauges, NodeState, NodeStatus, Phase, StageStatus
from engine.diagnosis.finding import Kind
from engine.diagnosis.standing import Standing
from engine.files import replace_whole
from engine.profile.profile import Profile
from engine.report.names import visible

MAX_LABEL = 200

_GAUGES: tuple[tuple[str, str, Callable[[Gauges], float | None]], ...] = (
    ("resident_bytes", "resident memory of the worker", lambda g: g.resident_bytes),
    ("kv_used_bytes", "keys and values held", lambda g: g.kv_used_bytes),
    ("queue_depth", "steps waiting for the compute thread", lambda g: g.queue_depth),
    ("cpu_utilisation", "processor use, 1 = one core", lambda g: g.cpu_utilisation),
    ("core_wait", "threads that could run and had no core, on average", lambda g: g.core_wait),
    ("cpu_temperature_celsius", "hottest processor sensor", lambda g: g.cpu_temperature_c),
    ("gpu_utilisation_ratio", "0..1 of the GPU's time in use", lambda g: g.gpu_utilisation),
    ("gpu_temperature_celsius", "GPU temperature", lambda g: g.gpu_temperature_c),
    ("machine_busy_ratio", "0..1 of all cores of the machine in use", lambda g: g.machine.busy),
    ("machine_stolen_ratio", "0..1 of all cores taken by the hypervisor", lambda g: g.machine.stolen),
    ("machine_clock_ratio", "clock of the cores, 1 = the highest", lambda g: g.machine.clock),
    ("machine_swapped_bytes_per_second", "swapped in and out", lambda g: g.machine.swapped_bytes_per_s),
    ("machine_free_bytes", "memory that processes may still have", lambda g: g.machine.free_bytes),
    ("disk_free_bytes", "left where weights are kept", lambda g: g.machine.disk_free_bytes),
    ("gpu_power_watts", "what the GPU draws", lambda g: g.machine.gpu_power_w),
)
_NODE_GAUGES: tuple[tuple[str, str, Callable[[NodeStatus], float | None]], ...] = (
    ("noodle_node_memory_limit_bytes", "what the worker may use for weights and KV", lambda n: n.memory_bytes),
    ("noodle_node_kv_budget_bytes", "room for keys and values", lambda n: n.kv_budget_bytes),
    ("noodle_node_heartbeat_age_seconds", "since the last heartbeat", lambda n: n.heartbeat_age_s),
)
_STAGE_GAUGES: tuple[tuple[str, str, Callable[[StageStatus], float]], ...] = (
    ("noodle_stage_predicted_seconds", "decode step as planned", lambda s: s.predicted_s),
    ("noodle_stage_expected_seconds", "decode step as planned, for what runs", lambda s: s.expected_s),
    ("noodle_stage_items", "items held", lambda s: s.stop - s.start),
)
_CLUSTER_GAUGES: tuple[tuple[str, str, Callable[[ClusterStatus], float]], ...] = (
    ("noodle_serving", "1 while a plan serves", lambda c: float(c.phase is Phase.SERVING)),
    ("noodle_plan_version", "version of the plan in force", lambda c: c.plan_version),
    ("noodle_plan_predicted_step_seconds", "a decode step around the plan, as planned", lambda c: c.speed.predicted_step_s),
    ("noodle_num_requests_running", "requests on the stages", lambda c: sum(not s.queue_place for s in c.sessions)),
    ("noodle_num_requests_waiting", "requests in the queue", lambda c: sum(bool(s.queue_place) for s in c.sessions)),
    ("noodle_alarms_unacknowledged", "warnings and errors that no operator has acknowledged", lambda c: c.alarms.num_unacknowledged),
    ("noodle_prefix_kept_bytes", "keys and values kept of sessions that ended, on all stages", lambda c: c.work.prefix_cache.kept_bytes),
    ("noodle_prefix_kept_sessions", "of how many sessions", lambda c: c.work.prefix_cache.num_kept),
)


def safe_label(text: str) -> str:
    """`text` as a label value: no control characters, no lone surrogates, at most MAX_LABEL characters.

    What is cut keeps a digest of the whole, so that two long names stay two.
    """
    clean = visible(text[: 4 * MAX_LABEL])
    if len(clean) <= MAX_LABEL and len(text) <= 4 * MAX_LABEL:
        return clean
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{clean[: MAX_LABEL - 15]}...{digest}"


def gauge(name: str, text: str, rows: Iterable[tuple[Mapping[str, str], float | None]]) -> Metric:
    """A gauge with one sample per row of (labels, value); rows without a value are left out."""
    family = GaugeMetricFamily(name, text)
    for labels, value in rows:
        if value is not None:
            family.add_metric([], float(value))
            family.samples[-1] = family.samples[-1]._replace(labels={k: safe_label(v) for k, v in labels.items()})
    return family


def cluster_metrics(status: ClusterStatus) -> Iterator[Metric]:
    """One look at a cluster; of nodes that were lost only that they are, for what they last said is not so any more."""
    labels = {"cluster_id": status.cluster_id, "model": status.model.name, "strategy": status.strategy}
    yield gauge("noodle_cluster_info", "what runs here; always 1", [(labels, 1.0)])
    for name, text, read in _CLUSTER_GAUGES:
        yield gauge(name, text, [({}, read(status))])
    there = [n for n in status.nodes if n.state is not NodeState.LOST]
    yield gauge("noodle_node_up", "1 while the worker is alive", [({"worker": n.worker_id}, float(n in there)) for n in status.nodes])
    cache, guesses = status.work.prefix_cache, status.work.speculation
    yield CounterMetricFamily("noodle_prompt_tokens_cached", "tokens of prompts that were not computed again", value=cache.cached_tokens)
    yield CounterMetricFamily("noodle_prefix_evictions", "kept keys and values that made room for sessions", value=cache.num_evictions)
    yield CounterMetricFamily("noodle_proposed_tokens", "tokens that steps carried on a guess", value=guesses.num_proposed)
    yield CounterMetricFamily("noodle_accepted_tokens", "of them, those that came", value=guesses.num_accepted)
    found = [(str(finding.kind), finding.share) for finding in Standing().after(status, 0.0).said]
    worst = {str(kind): max((share for name, share in found if name == kind), default=0.0) for kind in Kind}
    about = "share of the step, or of what is short, that is lost to what is wrong; 0 if it is not"
    yield gauge("noodle_diagnosis", about, [({"kind": kind}, share) for kind, share in worst.items()])
    for name, text, read_node in _NODE_GAUGES:
        yield gauge(name, text, [({"worker": n.worker_id}, read_node(n)) for n in there])
    yield from gauge_metrics("noodle_node", [(n.worker_id, n.gauges) for n in there])
    for name, text, read_stage in _STAGE_GAUGES:
        yield gauge(name, text, [({"worker": s.worker_id}, read_stage(s)) for s in status.stages])


def gauge_metrics(prefix: str, rows: Sequence[tuple[str, Gauges]]) -> Iterator[Metric]:
    """What workers read of themselves, by their ids."""
    for name, text, read in _GAUGES:
        yield gauge(f"{prefix}_{name}", text, [({"worker": worker_id}, read(gauges)) for worker_id, gauges in rows])


def profile_metrics(profile: Profile) -> Iterator[Metric]:
    """A profile's layers at the reference point of each phase."""
    environment = profile.environment
    about = {"model": profile.model, "device": environment.device_name, "dtype": environment.dtype, "fingerprint": profile.fingerprint}
    yield gauge("noodle_profile_info", "what was profiled; always 1", [(about, 1.0)])
    yield gauge("noodle_profile_overhead_ratio", "what the hooks cost", [({}, profile.honesty.overhead)])
    yield gauge("noodle_profile_coverage_ratio", "sum of the items over the step", [({}, profile.honesty.coverage)])
    timed = [(layer, p, f) for p in map(profile.reference_point, profile.phases) for layer in profile.layers if (f := layer.at(p))]
    rows = [({"index": str(la.index), "layer": la.path, "role": str(la.role), "phase": p.phase, "point": p.label}, f) for la, p, f in timed]
    yield gauge("noodle_layer_seconds", "median time of a layer with all inside it", [(labels, f.p50_s) for labels, f in rows])
    yield gauge("noodle_layer_self_seconds", "median time without the layers inside it", [(labels, f.self_s) for labels, f in rows])
    sizes = [({"index": str(la.index), "layer": la.path, "role": str(la.role)}, la.param_bytes) for la in profile.layers]
    yield gauge("noodle_layer_parameter_bytes", "parameters of a layer with all inside it", sizes)


class Figures(Collector):
    """Asks `collect_now` on every scrape."""

    def __init__(self, collect_now: Callable[[], Iterable[Metric]]) -> None:
        self._collect_now = collect_now

    def collect(self) -> Iterable[Metric]:
        return self._collect_now()


def exposition(metrics: Callable[[], Iterable[Metric]]) -> bytes:
    """The text that a scrape gets."""
    return generate_latest(registry_of(metrics))


def registry_of(metrics: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(metrics))
    return registry


def write_prometheus(profile: Profile, path: Path) -> None:
    """The profile as a text file that a node exporter can pick up."""
    replace_whole(path, exposition(lambda: profile_metrics(profile)))

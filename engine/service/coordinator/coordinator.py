"""The coordinator process: one cluster behind the Control service."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.control import events as on
from engine.control.adaptation.rules import AdaptationSettings, check_mode
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.commands import Record
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.data.errors import NotSupported, Refused
from engine.data.model import ModelCard, ModelRef
from engine.data.status import Severity
from engine.model.weights.weight_cache import CACHE_FOLDER, WeightCache
from engine.report.jsonl import LOG_NAME
from engine.report.jsonl_writer import JsonlWriter
from engine.service.coordinator.control_service import ControlService
from engine.service.coordinator.journal.journal import Journal
from engine.service.coordinator.journal.journal_recovery import recover
from engine.service.coordinator.journal.retention import prune_forever
from engine.service.coordinator.manifest_service import ManifestSource
from engine.service.coordinator.metrics.recorder import Recorder
from engine.service.coordinator.metrics.scrape_targets import ScrapeTargets
from engine.service.coordinator.options import CoordinatorOptions
from engine.service.coordinator.prepare import prepare_model
from engine.service.coordinator.shell import EVENTS_LOG, ClusterShell
from engine.service.coordinator.text.codec import TextCodec
from engine.service.coordinator.text.prompts import Prompts
from engine.service.coordinator.text.shared_prefix import read_shared, shared_prefixes
from engine.service.errors import as_noodle_error, surviving
from engine.service.log_lines.kept_lines import kept_lines
from engine.service.log_lines.line_service import LineService
from engine.service.metrics_server import MetricsServer, cluster_collector
from engine.service.process import Server, Stopping, announce, read_again_on_hangup
from engine.service.trust.guard import Guard
from engine.service.weights.pace import Pace
from engine.service.weights.weight_library import WeightLibrary
from engine.service.weights.weight_service import WeightService
from protos import noodle_pb2_grpc as rpc

if TYPE_CHECKING:
    from engine.service.coordinator.metrics.tracer import Tracer
    from engine.service.trust.discovery import Announcement

log = logging.getLogger(__name__)

JOURNAL_NAME = "journal.sqlite3"


async def run_coordinator(options: CoordinatorOptions) -> int:
    """Serve until told to stop; returns the exit code."""
    guard, model = Guard(options.server.security), options.model.ref()
    stopping = Stopping(options.server.exit_with_parent)
    state_dir = options.state_dir or Path(tempfile.mkdtemp(prefix="noodle-"))
    if options.recover:
        recover(state_dir / JOURNAL_NAME)
    journal = Journal(state_dir / JOURNAL_NAME)
    cluster_id = journal.cluster_id(f"noodle-{secrets.token_hex(2)}")
    adaptation = AdaptationSettings(mode=check_mode(journal.adaptation_mode(str(check_mode(options.adapt)))))
    shared_texts = read_shared(options.shared_prefix)
    config = ClusterConfig(
        options.num_workers,
        options.strategy,
        layers=options.layers,
        speculate=options.speculate,
        adaptation=adaptation,
        prefix_cache=PrefixSettings(is_on=options.prefix_cache != "off"),
    )
    cluster = Cluster(config, time.monotonic(), journal.last_plan_version(), journal.past_sessions(), journal.drained())
    shell = ClusterShell(cluster, cluster_id, journal, guard.access)
    scrapes = _scrapes(options, shell)
    metrics_address = scrapes.start()
    targets = ScrapeTargets(options.metrics_sd, cluster, cluster_id, metrics_address) if options.metrics_sd is not None else None
    if targets is not None:
        targets.write_first()
        shell.spawn(targets.keep_forever())
    if options.recording.metrics_dir is not None:
        shell.record_to(_start_recorder(options.recording.metrics_dir, model, options, shell))
    if options.recording.otel is not None:
        shell.trace_by(_tracer(options.recording.otel, cluster_id))
    server = Server(guard)
    cache_dir = options.model.cache.folder
    manifests = ManifestSource(cache_dir, lambda: cluster.card)
    rpc.add_ControlServicer_to_server(ControlService(shell, manifests, options.show_text), server.grpc)
    kept_lines().addFilter(lambda record: record.name != EVENTS_LOG)  # whoever reads lines has the events
    rpc.add_LineServiceServicer_to_server(LineService(kept_lines(), shell.peers.lines), server.grpc)
    library = WeightLibrary(WeightCache(cache_dir / CACHE_FOLDER), manifests.folder_of)
    sender = WeightService(library, Pace(lambda: bool(cluster.serving.flights)))
    rpc.add_WeightServiceServicer_to_server(sender, server.grpc)
    address = await server.start(options.server.listen)
    if exposed := guard.exposure(address):
        shell.record(Record(Severity.WARN, "security", "", exposed))
    announcement = await _announced(address, cluster_id, guard) if options.announce else None
    announce({"address": address, "cluster_id": cluster_id, "pid": os.getpid(), "metrics_address": metrics_address})
    read_again_on_hangup(guard)
    shell.spawn(shell.tick_forever())
    shell.spawn(prune_forever(journal.prune, options.keep))
    shell.spawn(_prepare(model, cache_dir, shared_texts, shell))
    try:
        await stopping.wait()
    finally:
        if announcement is not None:
            with surviving():
                await announcement.close()
        await server.stop()
        await shell.close()
        await asyncio.to_thread(scrapes.stop)
        if targets is not None:
            with surviving():
                targets.empty()
        if options.state_dir is None:
            shutil.rmtree(state_dir, ignore_errors=True)
    return 0


def _scrapes(options: CoordinatorOptions, shell: ClusterShell) -> MetricsServer:
    """Not started yet; whoever wants a list of targets wants them to answer."""
    metrics, loop = options.server.metrics, asyncio.get_running_loop()
    if metrics.metrics_port is None and options.metrics_sd is not None:
        metrics = replace(metrics, metrics_port=0)
    if metrics.metrics_port is None:
        return MetricsServer(metrics, tuple)
    from engine.service.coordinator.metrics.tally import Tally

    tally = Tally(shell.cluster)
    shell.count_in(tally)
    return MetricsServer(metrics, cluster_collector(loop, shell.status, tally.registry.collect))


def _as_before(cards: Sequence[ModelCard], journal: Journal) -> Sequence[ModelCard]:
    """Of several dtypes the one that a former coordinator chose: its sessions go on here. Before there was a choice it was the first."""
    known = [card for card in cards if card.ref.dtype == journal.dtype()]
    return known or (cards[:1] if journal.last_plan_version() else cards)


def _start_recorder(folder: Path, model: ModelRef, options: CoordinatorOptions, shell: ClusterShell) -> Recorder:
    """The run's log in `folder`; raises InvalidInput if it cannot be written."""
    recorder = Recorder(JsonlWriter(folder / LOG_NAME), shell.status, options.recording.metrics_every_step)
    recorder.start({"cluster_id": shell.cluster_id, "model": model.label, "strategy": options.strategy, "pid": os.getpid()})
    return recorder


async def _announced(address: str, cluster_id: str, guard: Guard) -> Announcement:
    """Raises Refused where anybody who finds the coordinator could join."""
    if not guard.known.tokens and not guard.asks_for_certificates:
        raise Refused("--announce tells a whole network where this is: give --tls-cert, --tls-key and --tls-ca, or --token-file, too")
    from engine.service.trust.discovery import COORDINATORS, Announcement

    announcement = Announcement(COORDINATORS, cluster_id, address)
    await announcement.open()
    return announcement


def _tracer(url: str, cluster_id: str) -> Tracer:
    """Raises NotSupported without OpenTelemetry's packages, InvalidInput for what is no address."""
    try:
        from engine.service.coordinator.metrics.tracer import tracer_to
    except ModuleNotFoundError as e:
        raise NotSupported(f"--otel needs {e.name}, which is not installed: pip install 'noodlecore[otel]'") from e
    return tracer_to(url, cluster_id)


async def _prepare(model: ModelRef, cache_dir: Path, shared_texts: Sequence[str], shell: ClusterShell) -> None:
    """Get the model ready and tell the cluster; a model that cannot be had is a state, not the end of the process."""
    try:
        cards = await prepare_model(model, cache_dir, lambda done, detail: shell.feed(on.ModelProgress(detail, done)))
        card, *others = _as_before(cards, shell.journal)
        codec = await asyncio.to_thread(TextCodec, Path(card.folder))
        prompts = await asyncio.to_thread(Prompts, card, codec)
        shared = await asyncio.to_thread(shared_prefixes, shared_texts, prompts)
        shell.speak(prompts)
    except Exception as e:
        shell.feed(on.ModelFailed(str(as_noodle_error(e))))
        shell.ready.set()
        return
    log.info("%s: weights %s", card.ref.label, "in a dtype to be chosen" if others else card.precision.sentence)
    named = [replace(c, tokenizer_source=codec.source, stand_in_tokenizer=codec.stand_in) for c in (card, *others)]
    shell.feed(on.ModelReady(named[0], shared, tuple(named[1:])))
    shell.outputs.restore()
    shell.ready.set()

"""`noodle-engine plan --export`: the plan in the words of an engine that is used already."""

from __future__ import annotations

from engine.commands.output import note, print_json, say
from engine.commands.planning.options import Exporting, Plan
from engine.commands.planning.plan_source import Source
from engine.data.errors import InvalidInput
from engine.data.model import ModelRef
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.export.engines import check_engine, export, export_document
from engine.planning.export.exported import Wish
from engine.planning.problem import Problem


def check(options: Plan) -> None:
    """Raise InvalidInput for options that say nothing without --export, or contradict it."""
    wanted = options.exporting
    if wanted.export is None:
        given = {"--running": wanted.running, "--device": wanted.device, "--model": wanted.model, "--random-weights": wanted.random_weights}
        if said := [name for name, value in given.items() if value not in (None, False, ())]:
            raise InvalidInput(f"{said[0]} says how a plan is exported: name the engine with --export, or leave it out")
        return
    check_engine(wanted.export)
    if options.compare:
        raise InvalidInput("--export takes one plan and --compare shows several: leave one of them out")
    if wanted.random_weights is not None and wanted.model is None:
        raise InvalidInput("--random-weights belongs to an architecture: name it with --model, or leave it out")


def running_plan(source: Source, problem: Problem) -> PartitionPlan:
    """What runs, at the costs of `problem`; raises InvalidInput where nothing is known to run, or on nodes that are gone."""
    plan = source.running_plan(problem)
    if plan is None:
        raise InvalidInput(
            "--running asks for the plan that runs, and none is known: give --connect to a cluster that serves, or --current"
        )
    return plan


def show(options: Plan, plan: PartitionPlan, source: Source) -> int:
    """Print what the engine takes on stdout, and on stderr, or as `not_expressed`, what it cannot do."""
    wanted = options.exporting
    engine = wanted.export or ""
    name = wanted.model or ("" if source.has_random_weights else source.model)
    modules = _modules(name, wanted, source) if engine == "accelerate" else ()
    exported = export(engine, Wish(plan, name, _devices(wanted), modules))
    for sentence in exported.not_expressed:
        note(f"{engine}: {sentence}")
    if options.json:
        print_json(plan.document() | {"export": export_document(exported)})
    else:
        say(exported.text)
    return 0


def _devices(wanted: Exporting) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in wanted.device:
        node_id, equals, device = text.rpartition("=")
        if not equals or not node_id or not device or not device.isascii() or not device.isprintable():
            raise InvalidInput(f"--device {text[:60]!r} is not allowed: give NODE=DEVICE, e.g. b=cuda:1")
        if node_id in found:
            raise InvalidInput(f"--device names node {node_id[:64]!r} twice: keep one")
        found[node_id] = device
    return found


def _modules(name: str, wanted: Exporting, source: Source) -> tuple[tuple[str, ...], ...]:
    """From the profile, or else from the model's configuration, if its folder is here; reads no weights."""
    if wanted.model is None and (source.modules or not name):
        return source.modules
    from engine.model.running.slicing import item_modules
    from engine.model.sources.source import resolve
    from engine.model.weights.weight_folder import WeightFolder

    folder = resolve(ModelRef(name, wanted.random_weights), cache_dir=wanted.cache.folder, allow_download=False)
    return item_modules(WeightFolder(folder).config)

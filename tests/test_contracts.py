"""Every import contract of pyproject.toml is kept, and each turns red for an import that it is there to forbid.

A contract that no breach can break guards nothing: a name in it may be spelt wrong, or a room may have moved away. So each has
breaches here, imports that are added to the graph of the real code one at a time.
"""

from __future__ import annotations

import copy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter import api

OPTIONS = api.read_configuration(str(Path(__file__).parent.parent / "pyproject.toml"))
CONTRACTS = {contract["name"]: contract for contract in OPTIONS["contracts_options"]}
BREACHES = {
    "The rooms stand on floors": ["engine.data.plan -> engine.files", "engine.model.families -> engine.planning.problem"],
    "The engine never imports the console": ["engine.commands.serving.serve -> noodle_tui.app", "engine.service.client -> textual"],
    "The pure rooms import no I/O": [
        "engine.control.sessions.serving -> time",
        "engine.simulation.drill.wire -> random",
        "engine.diagnosis.step -> time",
    ],
    "The solvers stand behind one door": ["engine.control.placement -> engine.planning.solving.exact"],
    "The model room has floors of its own": [
        "engine.model.weights.manifest -> engine.model.running.stage",
        "engine.model.running.stage -> engine.model.sources.card",
        "engine.model.hardware.roofline -> engine.model.profiling.spans",
        "engine.model.formats.gguf_folder -> engine.model.weights.stored_tensor",
    ],
    "The model room does not know the wire": ["engine.model.running.kv -> grpc", "engine.model.sources.card -> protos.noodle_pb2"],
    "The report room reads and writes files": ["engine.report.page -> torch", "engine.report.names -> engine.model.families"],
    "The two sides of the wire never import each other": ["engine.service.worker.payload -> engine.service.coordinator.text.codec"],
    "The console reaches the engine through its data": ["noodle_tui.cluster.link -> engine.planning.problem"],
    "The console's core and what it draws": ["noodle_tui.text.lines -> textual", "noodle_tui.core.history -> time"],
    "The console's rooms form no circle": [
        "noodle_tui.core.keys -> noodle_tui.changes.reducer",
        "noodle_tui.text.lines -> noodle_tui.text.tables",
    ],
    "No circles in the engine": [
        "engine.model.running.slicing -> engine.model.running.loading",
        "engine.model.sources.random_weights -> engine.model.sources.source",
        "engine.planning.solving.tables -> engine.planning.routing",
        "engine.control.nodes.claims -> engine.control.nodes.attendance",
        "engine.service.worker.payload -> engine.service.worker.worker",
    ],
}
CASES = [(begins, breach) for begins, breaches in BREACHES.items() for breach in breaches]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*OPTIONS["session_options"]["root_packages"], include_external_packages=True, cache_dir=None)


def is_kept(options: dict[str, Any], imports: grimp.ImportGraph) -> bool:
    """What `lint-imports` says of one contract; the check may change the graph that it is given."""
    module = import_module(f"importlinter.contracts.{options['type']}")
    contract_class = getattr(module, "".join(word.title() for word in options["type"].split("_")) + "Contract")
    contract = contract_class(options["name"], OPTIONS["session_options"], options)
    return bool(contract.check(graph=copy.deepcopy(imports), verbose=False).kept)


def contract(begins: str) -> dict[str, Any]:
    (found,) = (options for name, options in CONTRACTS.items() if name.startswith(begins))
    return found


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_is_kept_and_has_a_breach(name: str) -> None:
    assert is_kept(CONTRACTS[name], graph())
    assert any(name.startswith(begins) for begins in BREACHES)


@pytest.mark.parametrize(("begins", "breach"), CASES, ids=[breach for _, breach in CASES])
def test_a_contract_notices_what_it_forbids(begins: str, breach: str) -> None:
    importer, imported = breach.split(" -> ")
    assert {importer, imported} <= graph().modules, "a breach between modules that are not there proves nothing"
    broken = copy.deepcopy(graph())
    broken.add_import(importer=importer, imported=imported)
    assert not is_kept(contract(begins), broken)


def test_a_new_room_is_covered_without_being_listed() -> None:
    """One that nobody has written yet: its files may form no circle, and inside the model room it needs a floor."""
    attic = copy.deepcopy(graph())
    for module in ("engine.attic", "engine.attic.above", "engine.attic.below", "engine.model.attic"):
        attic.add_module(module)
    assert is_kept(contract("No circles in the engine"), attic)
    assert not is_kept(contract("The model room has floors of its own"), attic)
    attic.add_import(importer="engine.attic.above", imported="engine.attic.below")
    attic.add_import(importer="engine.attic.below", imported="engine.attic.above")
    assert not is_kept(contract("No circles in the engine"), attic)

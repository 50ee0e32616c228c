"""`noodle-engine simulate`: what a plan would do with given sessions, before anyone runs it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from engine.commands.output import note, print_json, say
from engine.commands.planning.options import Simulate
from engine.commands.planning.simulate_inputs import scenario_of
from engine.commands.planning.simulate_text import as_text
from engine.simulation.native import StagedVsNative
from engine.simulation.result import SimulationResult
from engine.simulation.simulator import StagedSimulator


def simulate(options: Simulate) -> int:
    """Simulate, print, and write the chart if one is wanted."""
    scenario = scenario_of(options)
    simulator = StagedSimulator(scenario)
    compared = simulator.compare_staged_vs_native() if options.compare == "native" else None
    result, native = (compared.staged, compared.native) if compared else (simulator.simulate_inference(), None)
    if options.gantt is not None:
        from engine.report.gantt_page import write_gantt

        layers = "+".join(str(stage.num_items) for stage in result.plan.stages)
        write_gantt(result, f"simulation of {layers} items, {result.num_sessions} sessions", options.gantt)
        note(f"the chart is in {options.gantt}")
    if options.json:
        print_json(_document(result, compared))
    else:
        say(as_text(result, native, width=options.width))
    return 0


def _document(result: SimulationResult, compared: StagedVsNative | None) -> dict[str, Any]:
    document = asdict(result)
    document["spans"] = [span._asdict() for span in result.spans]
    for stage in document["stages"]:
        stage["kv_timeline"] = [list(point) for point in stage["kv_timeline"]]
    if compared is not None:
        document["native"] = asdict(compared.native)
        document["speedup"] = compared.speedup
    return document

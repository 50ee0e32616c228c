"""`python -m tests.commands.faults [--each|--all] [COMMAND ...]`: what CI samples, or every file operation of the named commands."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.commands.faults.harness import Harness, Sample, every_fault, one_fault_each, turns
from tests.commands.faults.scenarios import make_template, scenarios


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="default: all of them")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--each", action="store_true", help="every operation with one error, not the first and last of its kind")
    depth.add_argument("--all", action="store_true", help="every operation with every error")
    options = parser.parse_args()
    num_runs = num_wrong = 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        errors = turns()
        harness = Harness(Path(name), make_template(Path(name) / "template"))
        for command, found in scenarios().items():
            sample = Sample(errors)
            for scenario in found if not options.commands or command in options.commands else ():
                operations = harness.operations(scenario)
                if options.all:
                    chosen = every_fault(operations)
                elif options.each:
                    chosen = one_fault_each(operations, errors)
                else:
                    chosen = sample.of(operations, scenario.most_faults)
                print(f"{scenario}: {len(operations)} operations, {len(chosen)} faults", flush=True)
                for fault in chosen:
                    num_runs += 1
                    if complaint := harness.fail(scenario, fault):
                        num_wrong += 1
                        print(complaint, flush=True)
        harness.close()
    cpu_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    print(f"{num_runs} runs in {time.monotonic() - began_s:.0f} s, {cpu_s:.0f} s of them computing, {num_wrong} wrong")
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""`noodle-engine doctor`: what is wrong on this machine and how to mend it."""

from __future__ import annotations

from engine.commands.machine.doctor_checks import as_document, as_text, examine, exit_code
from engine.commands.machine.options import Doctor
from engine.commands.output import print_json, say


def doctor(options: Doctor) -> int:
    """Print every finding; the exit code is 1 if one of them is an error. With --hardware, measure the machine instead."""
    if options.hardware:
        from engine.commands.machine import doctor_hardware

        return doctor_hardware.run(options.json)
    findings = examine()
    if options.json:
        print_json(as_document(findings))
    else:
        say(as_text(findings))
    return exit_code(findings)

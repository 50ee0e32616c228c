"""`noodle-engine report`: a run's metrics or a profile as a page, a spreadsheet or text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.commands.machine.options import Report
from engine.commands.machine.profile import read_profile
from engine.commands.output import note, print_json, say, table
from engine.data.errors import InvalidInput, NotFound
from engine.profile.profile import Profile
from engine.report.jsonl import LOG_NAME
from engine.report.run_report import Run, read_run, run_summary, write_run_report

PROFILE_NAME = "profile.json"
_SUFFIXES = {"html": ".html", "csv": ".csv", "json": ".json", "jsonl": ".jsonl", "prometheus": ".prom"}


def report(options: Report) -> int:
    """Write the report and say where it is."""
    profile = _profile_path(options.path)
    if profile is not None:
        return _report_profile(options, profile)
    found = read_run(options.path)
    if options.format != "html":
        raise InvalidInput(f"--format {options.format} is for profiles: a run is a page, or its figures with --json")
    out = options.out or _folder(options.path) / "report.html"
    write_run_report(found, out)
    _say(options, run_summary(found) if options.json else {}, out, _text(found))
    return 0


def _report_profile(options: Report, path: Path) -> int:
    profile = read_profile(path)
    suffix = _SUFFIXES[options.format]
    out = options.out or path.with_name({"html": "dashboard.html", "json": "profile.export.json"}.get(options.format, f"profile{suffix}"))
    if out.resolve() == path.resolve():
        raise InvalidInput(f"{out} is the profile itself: choose another --out")
    _write(profile, options.format, out)
    summary = {"model": profile.model, "num_layers": len(profile.layers), "num_items": len(profile.items)}
    _say(options, summary, out, f"{profile.model}: {len(profile.layers)} layers, {len(profile.items)} items")
    return 0


def _write(profile: Profile, kind: str, out: Path) -> None:
    from engine.report import csv_export, dashboard, jsonl, prometheus

    writers = {
        "html": dashboard.write_dashboard,
        "csv": csv_export.write_csv,
        "json": csv_export.write_json,
        "jsonl": jsonl.write_profile_jsonl,
        "prometheus": prometheus.write_prometheus,
    }
    writers[kind](profile, out)


def _say(options: Report, document: dict[str, Any], out: Path, text: str) -> None:
    if options.json:
        print_json({"path": str(out), **document})
        return
    say(text)
    note(f"written to {out}")


def _profile_path(path: Path) -> Path | None:
    """The profile that `path` names, or None if it names a run."""
    if path.is_dir():
        return path / PROFILE_NAME if (path / PROFILE_NAME).is_file() and not (path / LOG_NAME).exists() else None
    if not path.exists():
        raise NotFound(f"{path} does not exist: give the folder of --metrics-dir, a .jsonl log, or a profile.json")
    return path if path.suffix == ".json" else None


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _text(found: Run) -> str:
    summary = run_summary(found)
    rows = [
        (
            str(s["worker_id"]),
            str(s["phase"]),
            str(s["num_steps"]),
            *(_ms(s[k]) for k in ("compute_p50_s", "queue_p50_s", "wire_in_p50_s", "wire_out_p50_s")),
        )
        for s in summary["stages"]
    ]
    about = f"{found.about.get('cluster_id', 'run')}: {summary['duration_s']:.1f} s, {len(summary['plans'])} plans, "
    about += f"{summary['num_events']} events"
    unread = found.num_lost + found.num_torn + found.num_damaged
    lost = [f"{found.num_lost} records lost, {found.num_torn} torn, {found.num_damaged} damaged"] if unread else []
    return "\n".join([about, *lost, table(("STAGE", "PHASE", "STEPS", "COMPUTE ms", "QUEUE ms", "IN ms", "OUT ms"), rows)])


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3f}"

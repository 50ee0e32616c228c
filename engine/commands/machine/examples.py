"""`noodle-engine examples`: files to begin with, which come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine.commands.machine.options import Examples
from engine.commands.output import note, print_json, say, table
from engine.data.errors import InvalidInput
from engine.files import replace_whole

# Each file by the name that users give it: where it lies in the package, and what it is for.
FILES = {
    "options.yaml": ("example.yaml", "every kind of option in a --config file"),
    "prometheus.yaml": ("examples/prometheus/prometheus.yaml", "a Prometheus that finds clusters by --metrics-sd"),
    "alerts.yaml": ("examples/prometheus/alerts.yaml", "alert rules for it"),
    "dashboard.json": ("examples/prometheus/dashboard.json", "a Grafana dashboard over it"),
    "kubernetes.yaml": ("examples/kubernetes/kubernetes.yaml", "coordinator, workers and API on Kubernetes"),
    "Dockerfile": ("examples/kubernetes/Dockerfile", "the image for it, with CUDA or without"),
    "noodle-coordinator.service": ("examples/systemd/noodle-coordinator.service", "a coordinator as a systemd service"),
    "noodle-worker.service": ("examples/systemd/noodle-worker.service", "a worker as a systemd service"),
}


def examples(options: Examples) -> int:
    """List the files, print one, or write them."""
    if options.name is None and options.out is None:
        rows = [(name, about) for name, (_, about) in FILES.items()]
        if options.json:
            print_json([{"name": name, "about": about} for name, about in rows])
        else:
            say(table(("file", "what it is"), rows))
            note("noodle-engine: `examples NAME` prints one, `examples --out DIR` writes all of them")
        return 0
    names = [options.name] if options.name is not None else list(FILES)
    if options.out is None:
        say(text_of(names[0]).removesuffix("\n"))
        return 0
    written = [_write(name, options.out) for name in names]
    if options.json:
        print_json([str(path) for path in written])
    else:
        say("\n".join(map(str, written)))
    return 0


def text_of(name: str) -> str:
    """Raises InvalidInput for a name that is none of them."""
    if name not in FILES:
        raise InvalidInput(f"there is no example called {name[:80]!r}: there are {', '.join(FILES)}")
    return files("engine").joinpath(FILES[name][0]).read_text(encoding="utf-8")


def _write(name: str, folder: Path) -> Path:
    replace_whole(folder / name, text_of(name).encode())
    return folder / name

"""The manifests, the image and the units that come with the package: valid for those who read them, and for this program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine import cli
from engine.commands.machine.examples import text_of
from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority, read_certificate

client = pytest.importorskip("kubernetes.client", reason="the kubernetes package is not installed")

ROOT = Path(__file__).parents[2]
KINDS = {
    "Service": "V1Service",
    "StatefulSet": "V1StatefulSet",
    "Deployment": "V1Deployment",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "NetworkPolicy": "V1NetworkPolicy",
}
API_VERSIONS = {
    "Service": "v1",
    "StatefulSet": "apps/v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}
PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float), "object": (object,)}
SECRETS = {  # as the comment at the top of the manifests makes them
    "noodle-coordinator-certs": {"ca.pem", "revoked.pem", "noodle-coordinator-0.pem", "noodle-coordinator-0.key"},
    "noodle-worker-certs": {"ca.pem", "revoked.pem", *(f"noodle-worker-{i}.{kind}" for i in range(3) for kind in ("pem", "key"))},
    "noodle-api-certs": {"ca.pem", "revoked.pem", "noodle-api.pem", "noodle-api.key", "keys"},
}


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text_of("kubernetes.yaml")))


def workloads() -> list[tuple[str, dict[str, Any]]]:
    """Names, and what their pods are made of."""
    return [(m["metadata"]["name"], m["spec"]) for m in manifests() if m["kind"] in ("StatefulSet", "Deployment")]


def wrong(value: Any, kind: str, place: str) -> Iterator[str]:
    """What the API's own models have against it: unknown fields, wrong types, fields that must be there."""
    if match := re.fullmatch(r"[lL]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for index, item in enumerate(value):
            yield from wrong(item, match[1], f"{place}[{index}]")
    elif match := re.fullmatch(r"[dD]ict[\[(](.+), ?(.+)[\])]", kind):
        for key, item in value.items():
            yield from wrong(item, match[2], f"{place}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind not in ("bool", "object")):
            yield f"{place} is no {kind}"
    else:
        yield from wrong_fields(value, getattr(client, kind), place)


def wrong_fields(value: Any, model: Any, place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place} has no fields"
        return
    names = {wire: name for name, wire in model.attribute_map.items()}
    for key in value.keys() - names.keys():
        yield f"{place} has no field {key}"
    known = {names[key]: item for key, item in value.items() if key in names}
    try:
        model(**known)
    except ValueError as error:
        yield f"{place}: {error}"
    for name, item in known.items():
        yield from wrong(item, model.openapi_types[name], f"{place}.{model.attribute_map[name]}")


# --- Kubernetes -------------------------------------------------------------------------------------------------------
def test_the_manifests_are_what_the_api_takes() -> None:
    found = manifests()
    assert {m["kind"] for m in found} == set(KINDS)
    for manifest in found:
        assert manifest["apiVersion"] == API_VERSIONS[manifest["kind"]]
        assert [*wrong(manifest, KINDS[manifest["kind"]], manifest["metadata"]["name"])] == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"replica": 1}, "has no field replica"),
        ({"replicas": "1"}, "replicas is no int"),
        ({"selector": None}, "selector"),
        ({"template": {"spec": {"containers": [{"image": "x"}]}}}, "name"),
    ],
)
def test_what_the_api_would_refuse_is_noticed(change: dict[str, Any], sentence: str) -> None:
    deployment = next(m for m in manifests() if m["kind"] == "Deployment")
    deployment["spec"].update(change)
    assert any(sentence in text for text in wrong(deployment, "V1Deployment", "d"))


@pytest.mark.parametrize(("name", "spec"), workloads(), ids=[name for name, _ in workloads()])
def test_a_pod_runs_this_program_with_options_that_it_takes(name: str, spec: dict[str, Any]) -> None:
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    words = [word.replace("$(POD_NAME)", f"{name}-0").replace("$(POD_IP)", "10.1.2.3") for word in container["args"]]
    command, options = cli.parse(words)
    assert command == {"noodle-coordinator": "coordinator", "noodle-worker": "worker", "noodle-api": "serve"}[name]
    assert not [word for word in words if "$(" in word]

    volumes = {volume["name"]: volume for volume in pod["volumes"]} | {
        c["metadata"]["name"]: c for c in spec.get("volumeClaimTemplates", ())
    }
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    secret = SECRETS[mounts["/certs"]["secret"]["secretName"]]
    shown = [word.partition("=/certs/")[2] for word in words if "=/certs/" in word]
    assert len(shown) >= 3 and set(shown) <= secret
    written = [Path(word.partition("=")[2]).parts[:2] for word in words if word.startswith(("--state-dir=", "--cache-dir="))]
    assert all(str(Path(*parts)) in mounts for parts in written)

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    said = {int(match[1]) for word in words if (match := re.search(r"(?:--listen=.*:|--metrics-port=|--http=.*:)(\d+)$", word))}
    assert set(ports.values()) == said
    for probe in ("readinessProbe", "livenessProbe"):
        (found,) = (container[probe][way] for way in ("httpGet", "tcpSocket") if way in container[probe])
        assert found["port"] in ports
    if command == "worker":
        assert options.worker.drain_s + 10 <= pod["terminationGracePeriodSeconds"]
    if command == "serve":
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] + 5 <= pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(("name", "spec"), workloads(), ids=[name for name, _ in workloads()])
def test_a_pod_has_no_more_rights_than_it_needs(name: str, spec: dict[str, Any]) -> None:
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert (
            context["readOnlyRootFilesystem"]
            and context["allowPrivilegeEscalation"] is False
            and context["capabilities"] == {"drop": ["ALL"]}
        )
        assert container["resources"]["limits"]["memory"]


def test_selectors_find_their_pods_and_names_their_services() -> None:
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in workloads()}
    for manifest in manifests():
        name, spec = manifest["metadata"]["name"], manifest["spec"]
        wanted = spec.get("selector") or spec["podSelector"]
        wanted = wanted.get("matchLabels", wanted)
        assert [n for n, found in labels.items() if wanted.items() <= found.items()] == ([name] if name != "noodle" else [*labels])
    services = {m["metadata"]["name"]: m["spec"]["ports"][0]["port"] for m in manifests() if m["kind"] == "Service"}
    for _, spec in workloads():
        assert spec.get("serviceName", "noodle-api") in services
        words = spec["template"]["spec"]["containers"][0]["args"]
        named = [word.partition("=")[2] for word in words if word.startswith(("--join=", "--connect="))]
        assert all(services[address.partition(":")[0]] == int(address.partition(":")[2]) for address in named)


def test_the_commands_at_the_top_make_the_secrets_that_pods_mount(tmp_path: Path) -> None:
    """In a shell, with a kubectl that writes down what it is asked for."""
    lines = [line.removeprefix("#   ") for line in text_of("kubernetes.yaml").splitlines() if line.startswith("#   ")]
    program = 'noodle-engine() { echo engine "$@" >> asked; }; kubectl() { echo kubectl "$@" >> asked; }; openssl() { echo key; }\n'
    subprocess.run(["bash", "-ec", program + "\n".join(lines)], cwd=tmp_path, check=True)
    asked = [shlex.split(line) for line in (tmp_path / "asked").read_text().splitlines()]
    made = {words[4]: {Path(w.partition("=")[2]).name for w in words[5:]} for words in asked if words[0] == "kubectl"}
    assert made == SECRETS and (tmp_path / "keys").read_text().startswith("operator ")
    certificates = {words[3] for words in asked if words[:3] == ["engine", "certs", "node"]}
    assert certificates == {Path(file).stem for files in SECRETS.values() for file in files if file.endswith(".key")}
    assert all(cli.parse(words[1:])[0] == "certs" for words in asked if words[0] == "engine")


def test_the_coordinator_shows_a_certificate_for_the_name_that_workers_dial(tmp_path: Path) -> None:
    (line,) = [line for line in text_of("kubernetes.yaml").splitlines() if "certs node noodle-coordinator-0" in line]
    certs = cli.parse(shlex.split(line.removeprefix("#   noodle-engine ")))[1]
    make_authority(tmp_path, "lab")
    path, _ = issue(tmp_path, certs.name, Role[certs.role.upper()], certs.host)
    joins = {
        word.partition("=")[2].partition(":")[0]
        for _, s in workloads()
        for word in s["template"]["spec"]["containers"][0]["args"]
        if "--join" in word
    }
    assert joins <= set(read_certificate(path).hosts)


# --- the image --------------------------------------------------------------------------------------------------------
def test_the_image_installs_what_there_is_and_runs_without_root() -> None:
    text = text_of("Dockerfile").replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    words = dict(steps)
    (extras,) = [rest.partition("=")[2] for step, rest in steps if rest.startswith("EXTRAS=")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    users = {spec["template"]["spec"]["securityContext"]["runAsUser"] for _, spec in workloads()}
    assert users == {int(words["USER"])} and f"--uid {words['USER']}" in text
    assert words["ENTRYPOINT"] == '["noodle-engine"]' and "noodle-engine" in project["project"]["scripts"]
    images = {spec["template"]["spec"]["containers"][0]["image"] for _, spec in workloads()}
    assert images == {f"noodlecore:{project['project']['version']}"}
    probe = next(rest for step, rest in steps if step == "HEALTHCHECK")
    assert "9090/health" in probe


# --- systemd ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["noodle-coordinator.service", "noodle-worker.service"])
def test_a_unit_starts_this_program_with_options_that_it_takes(name: str) -> None:
    text = text_of(name).replace("\\\n", " ")
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    program, *words = shlex.split(settings["ExecStart"])
    command, options = cli.parse(words)
    assert Path(program).name == "noodle-engine" and command == name.removeprefix("noodle-").removesuffix(".service")
    if command == "worker":
        assert options.worker.drain_s + 10 <= int(settings["TimeoutStopSec"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["noodle-coordinator.service", "noodle-worker.service"])
@pytest.mark.parametrize("change", [None, ("Restart=always", "Restart=sometimes")])
def test_systemd_takes_a_unit_and_notices_a_wrong_one(name: str, change: tuple[str, str] | None, tmp_path: Path) -> None:
    program = tmp_path / "noodle-engine"
    program.touch(0o755)
    text = text_of(name).replace("/opt/noodlecore/bin/noodle-engine", str(program))
    unit = tmp_path / name
    unit.write_text(text if change is None else text.replace(*change))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if name in line]
    assert bool(own) is (change is not None), done.stderr
    assert done.returncode == 0

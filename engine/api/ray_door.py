"""`serve --on ray`: replicas of the HTTP API behind the proxy of Ray Serve, as the command sees them.

Made on the main thread before signals are handled, for Ray takes SIGTERM when it connects; what follows blocks and is for other threads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import RequestRouterConfig

from engine.api.options import ApiOptions
from engine.api.ray_replica import Replica
from engine.api.server import host_and_port, known_keys
from engine.data.errors import InvalidInput, NoodleError, Refused, Unavailable
from engine.service.addresses import is_loopback
from engine.service.on_ray.options import DEFAULT_REPLICAS, RayDoor
from engine.service.on_ray.ray_cluster import connect, find

MAX_ONGOING = 1000  # of a replica: streams wait in the cluster, which says when it has no room
GRACE_S = 2.0  # for answers that run when a replica is to end
HEALTH_PERIOD_S = 2.0
ROUTE_LIMIT_S = 30.0  # for the proxy to hear of the application
_ON_HEAD = "node:__internal_head__"  # a resource that Ray gives to one node


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of the application; both empty where all is well."""

    end: str  # it is gone
    trouble: str


class RayServeDoor:
    """`start`, then `standing` again and again, then `stop` or `leave`."""

    def __init__(self, options: ApiOptions, on_ray: RayDoor) -> None:
        """Connects to Ray. Raises InvalidInput and Refused naming the option that is wrong, Unavailable where there is no such Ray."""
        self._options, self._on_ray = options, on_ray
        if options.keys is None:
            raise InvalidInput("serve --on ray needs --keys FILE with lines 'viewer|operator KEY': a cluster on Ray knows no tokens")
        self._host, self._port = host_and_port(options)
        if self._port == 0:
            raise InvalidInput("--http with port 0 does not go with --on ray: Ray Serve must be told its port")
        self._keys = {digest: role.name for digest, role in known_keys(options.keys).items()}
        self._name = application_name(on_ray.place.cluster_name)
        connect(on_ray.place)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._begins_serve = False

    def start(self) -> tuple[str, str]:
        """Returns the base address of the API and the coordinator's. Raises NotFound for a cluster that does not run, Refused for an API
        that runs already or where another application has the path, Unavailable with what Ray says.
        """
        place = self._on_ray.place
        keeper = find(place)
        if (found := serve.status().applications).get(self._name) is not None:
            raise Refused(
                f"the API of {place.cluster_name} runs on this Ray already: end it with `noodle-engine down --on ray --name "
                f"{place.cluster_name} --api`"
            )
        try:
            address = str(ray.get(keeper.state.remote())["address"])
            self._begins_serve = not found and not serve.status().proxies
            serve.start(proxy_location="HeadOnly", http_options=self._http_options())
            serve.run(self._application(), name=self._name, route_prefix="/")
            return self._reached(), address
        except (RayError, RuntimeError, ValueError, serve.exceptions.RayServeException) as error:
            why = self._trouble() or _first_line(error)
            self.stop()
            raise Unavailable(f"Ray Serve could not start the API: {why}") from error
        except NoodleError:
            self.stop()
            raise

    def standing(self) -> Standing:
        """As Serve knows it."""
        try:
            is_there = self._name in serve.status().applications
            return Standing("" if is_there else "the API was ended from elsewhere", self._trouble() if is_there else "")
        except (RayError, serve.exceptions.RayServeException) as error:
            return Standing(f"the API is lost with its Ray cluster: {_first_line(error)}", "")

    def stop(self) -> None:
        """End it, and leave nothing."""
        with contextlib.suppress(RayError, serve.exceptions.RayServeException):
            serve.delete(self._name)
            if self._begins_serve and not serve.status().applications:
                serve.shutdown()
        self.leave()

    def leave(self) -> None:
        """Let it run on its own."""
        ray.shutdown()

    def _application(self) -> Any:
        options = self._options
        settings = {"model_name": options.model_name, "cors": options.cors, "max_tokens": options.max_tokens}
        deployment = serve.deployment(
            serve.ingress()(Replica),
            name="api",
            num_replicas=self._on_ray.replicas or DEFAULT_REPLICAS,
            max_ongoing_requests=MAX_ONGOING,
            ray_actor_options={"num_cpus": 0},  # workers may have reserved all there are, and a replica waits more than it computes
            graceful_shutdown_timeout_s=GRACE_S,
            graceful_shutdown_wait_loop_s=GRACE_S / 10,
            health_check_period_s=HEALTH_PERIOD_S,
            request_router_config=RequestRouterConfig(request_router_class="engine.api.ray_routing.LessBusyOfTwo"),
        )
        return deployment.bind(self._on_ray.place.cluster_name, settings, self._keys)

    def _http_options(self) -> dict[str, Any]:
        found: dict[str, Any] = {"host": self._host, "port": self._port}
        if self._options.http_cert is not None and self._options.http_key is not None:
            found |= {"ssl_certfile": _whole(self._options.http_cert), "ssl_keyfile": _whole(self._options.http_key)}
        return found

    def _reached(self) -> str:
        """Where the proxy answers, once it knows the application. Raises Unavailable if it does not, Refused if it speaks no TLS."""
        host = _head() if self._host in ("0.0.0.0", "::") else self._host
        place = f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"
        base, plain = f"https://{place}" if self._options.http_cert else f"http://{place}", f"http://{place}"
        started_s = time.monotonic()
        while _routes(base).get("/") != self._name:
            if base != plain and _routes(plain):
                raise Refused(
                    f"Ray Serve runs at {place} already, without TLS, and takes no certificate any more: end Serve first, or leave out "
                    "--http-cert and --http-key and put a proxy with TLS in front of it (.github/guides/reverse_proxy.md)"
                )
            if time.monotonic() - started_s > ROUTE_LIMIT_S:
                here = "; loopback is that of the head of the Ray cluster" if is_loopback(f"{self._host}:1") else ""
                raise Unavailable(
                    f"Ray Serve does not answer for the API at {base}: if it was started before at another address, give that with "
                    f"--http{here}"
                )
            time.sleep(0.1)
        return base

    def _trouble(self) -> str:
        """What Serve says of an application that is not well."""
        found = serve.status().applications.get(self._name)
        if found is None or found.status in ("RUNNING", "DEPLOYING", "NOT_STARTED"):
            return ""
        told = [deployment.message for deployment in found.deployments.values() if deployment.message]
        return _last_line(" ".join(told) or found.message)


def application_name(cluster: str) -> str:
    """Among the applications of Serve."""
    return f"noodlecore-{cluster}"


def remove(cluster: str) -> bool:
    """End the API of a cluster, if there is one, whoever started it, and Serve with the last application; call after `connect`."""
    if application_name(cluster) not in serve.status().applications:
        return False
    serve.delete(application_name(cluster))
    if not serve.status().applications:
        serve.shutdown()
    return True


def _routes(base: str) -> dict[str, str]:
    """Applications by path, as a proxy tells them; empty where nobody answers."""
    unverified = ssl._create_unverified_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified))
    try:
        with opener.open(f"{base}/-/routes", timeout=2.0) as answer:
            found: dict[str, str] = json.load(answer)
            return found
    except (OSError, ValueError):
        return {}


def _head() -> str:
    return next((str(node["NodeManagerAddress"]) for node in ray.nodes() if _ON_HEAD in node["Resources"]), "127.0.0.1")


def _whole(path: Path) -> str:
    return str(path.resolve())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]

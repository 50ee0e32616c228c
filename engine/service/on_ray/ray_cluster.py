"""A cluster on Ray, as the program that starts it sees it: the same as an embedded one, with its processes elsewhere.

It is made on the main thread before signals are handled, for Ray takes SIGTERM when it connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.data.errors import NoodleError, NotFound, Refused, Unavailable
from engine.options.declared import words
from engine.service.addresses import check_address, split_address
from engine.service.local_options import LocalOptions
from engine.service.on_ray.keeper import NAMESPACE, OPERATOR, Keeper
from engine.service.on_ray.options import RayOptions, RayPlace
from engine.service.trust import certificates
from engine.service.trust.local_tokens import leave_papers, remove_papers

FOLLOW_S = 0.5
CONNECT_LIMIT_S = 5.0
DEFAULT_LISTEN = "127.0.0.1:0"
STOP_LIMIT_S = 60.0


class RayCluster:
    """Starts, follows and ends one; connected to Ray from the beginning."""

    def __init__(self, options: LocalOptions, on_ray: RayOptions) -> None:
        """Raises Unavailable where there is no such Ray."""
        self._options, self._on_ray = options, on_ray
        self.address = ""
        self.metrics_addresses: dict[str, str] = {}
        self.on_note: Callable[[str], None] | None = None  # a sentence about what it waits for
        self._keeper: Any = None
        self._state: Mapping[str, Any] = {}
        self._following: asyncio.Task[None] | None = None
        self._end = ""  # how it ended without us
        connect(on_ray.place)

    async def start(self) -> str:
        """Start everything; returns the coordinator's address as soon as it is bound. Raises Refused for a name in use."""
        self._keeper = await asyncio.to_thread(self._make_keeper)
        try:
            state = await asyncio.to_thread(ray.get, self._keeper.started.remote())
            if state["failure"] or not state["address"]:
                raise NoodleError(state["failure"] or "the coordinator did not say its address in time: look at `ray logs`")
            await self._enter(state)
        except RayError as error:
            raise explained(error) from error
        self._following = asyncio.create_task(self._follow())
        return self.address

    async def stop(self) -> None:
        """End it, and leave nothing."""
        if self._following is not None:
            self._following.cancel()
        if self._keeper is not None:
            await asyncio.to_thread(end, self._keeper)
            remove_papers(self.address)
        ray.shutdown()

    def pids(self) -> dict[str, int]:
        """Of processes on whatever nodes."""
        workers = {name: int(found["pid"]) for name, found in self._announced().items()}
        return {"coordinator": int(self._state.get("pid", 0)), **workers}

    def hosts(self) -> dict[str, str]:
        """Where each worker runs."""
        return {name: str(found["host"]) for name, found in self._announced().items()}

    def failures(self) -> tuple[str, ...]:
        """A sentence for every process that ended by itself, and for the end of everything."""
        ends = (self._end, str(self._state.get("failure", "")))
        told = (f"started again: {text}" if text.startswith("coordinator ") else text for text in self._state.get("sentences", ()))
        return (*told, *(text for text in ends if text))

    def _announced(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._state.get("announced", {})
        return found

    def _make_keeper(self) -> Any:
        name, coordinator = self._on_ray.place.cluster_name, self._options.coordinator
        plain = replace(coordinator, num_workers=1, state_dir=None, server=replace(coordinator.server, listen=DEFAULT_LISTEN))
        asked = self._on_ray.resources
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(Keeper).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=16,
            scheduling_strategy=here,
        )
        try:
            return actor.remote(
                name=name,
                run=secrets.token_hex(4),
                coordinator_words=tuple(words(plain)),  # the keeper adds what it decides
                listen=coordinator.server.listen,
                state_dir="" if coordinator.state_dir is None else str(coordinator.state_dir),
                num_workers=self._options.num_workers,
                resources=None if asked is None else asked.bundle(),
                worker_words=(*words(self._options.worker), "--log-level=WARNING"),
                slowdowns=self._options.slowdowns,
            )
        except ValueError as error:  # what Ray says of a name in use
            raise Refused(
                f"a cluster called {name} runs on this Ray already: end it with `noodle-engine down --on ray --name {name}`, or give "
                "another --name"
            ) from error

    async def _enter(self, state: Mapping[str, Any]) -> None:
        """Get a certificate for a key of our own, and leave it where commands of this user find it."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = certificates.request_for(key, OPERATOR).public_bytes(serialization.Encoding.PEM)
        papers = await asyncio.to_thread(ray.get, self._keeper.admit.remote(request))
        self._state, self.address = state, state["address"]
        leave_papers(self.address, papers["node.pem"], certificates.key_pem(key), papers["ca.pem"])

    async def _follow(self) -> None:
        told: set[str] = set()
        while not self._end:
            try:
                state = await asyncio.to_thread(ray.get, self._keeper.state.remote())
            except ActorUnavailableError:
                pass  # Ray starts it again
            except RayActorError:
                self._end = f"coordinator of {self._on_ray.place.cluster_name} was ended from elsewhere"
                return
            except RayError as error:
                self._end = f"coordinator of {self._on_ray.place.cluster_name} is lost with its Ray cluster: {_first_line(error)}"
                return
            else:
                if state["address"] and state["address"] != self.address:
                    remove_papers(self.address)
                    await self._enter(state)
                    self._note(f"the coordinator is at {self.address} now")
                self._state = state
                for note in state["notes"]:
                    if note not in told:
                        told.add(note)
                        self._note(note)
            await asyncio.sleep(FOLLOW_S)

    def _note(self, text: str) -> None:
        if self.on_note is not None:
            self.on_note(text)


def connect(place: RayPlace) -> None:
    """Join that Ray cluster as a driver. Raises Unavailable, each time with what can be done."""
    if place.ray_address != "auto":
        _check_answers(place.ray_address)
    try:
        ray.init(address=place.ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, TimeoutError) as error:
        which = "this machine belongs to none" if place.ray_address == "auto" else f"nobody answers at {place.ray_address}"
        raise Unavailable(_none(which)) from error
    except (RuntimeError, ValueError, RayError) as error:
        raise Unavailable(f"the Ray cluster at {place.ray_address[:80]} cannot be joined: {_first_line(error)}") from error


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    host, port = split_address(check_address(address))
    try:
        socket.create_connection((host, port), CONNECT_LIMIT_S).close()
    except OSError as error:
        raise Unavailable(_none(f"nobody answers at {address} ({error.strerror or error})")) from error


def _none(which: str) -> str:
    return f"there is no Ray cluster: {which}; `ray start --head` makes one, --address HOST:PORT names another"


def find(place: RayPlace) -> Any:
    """The keeper of a cluster that runs; raises NotFound."""
    try:
        return ray.get_actor(place.cluster_name, namespace=NAMESPACE)
    except ValueError as error:
        raise NotFound(f"no cluster called {place.cluster_name} runs on this Ray: give its --name, or another --address") from error


def end(keeper: Any) -> str:
    """End a cluster; returns the address that it had. What does not end by itself is ended by Ray."""
    address = ""
    with contextlib.suppress(RayError):
        address = ray.get(keeper.state.remote(), timeout=STOP_LIMIT_S)["address"]
        ray.get(keeper.stop.remote(), timeout=STOP_LIMIT_S)
    ray.kill(keeper, no_restart=True)
    return address


def explained(error: RayError) -> NoodleError:
    """What went wrong on a node, in our words where we know it."""
    text = str(error)
    if "No module named" in text:
        return Unavailable("a node of the Ray cluster cannot load this package: install noodlecore, in the same version, on all of them")
    return Unavailable(f"Ray could not start the coordinator: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

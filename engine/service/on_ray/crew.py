"""The workers of a cluster on Ray: each has a post, which a thread keeps filled for as long as it is wanted.

Ray places the actors and starts lost ones again, elsewhere where their node is gone; the post begins the worker process in whatever
actor there is. Where the number of workers follows the nodes, posts come and go with them.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.data.errors import NoodleError
from engine.service.on_ray.places import RayNode, bundle_for_all, bundle_of, free_names, living, num_on, share_of_host, shortage
from engine.service.on_ray.worker_actor import WorkerActor

log = logging.getLogger(__name__)

FOLLOW_S = 1.0  # between two looks at the nodes
SHORTAGE_S = 5.0  # before a shortage is told: nodes may be about to register
STEADY_S = 30.0  # a worker that lived so long is not one that fails at its start
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
STOP_LIMIT_S = 10.0
_NODE_LABEL = "ray.io/node-id"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a crew is to be. `num_workers` 0: as many as the nodes hold."""

    num_workers: int
    resources: Mapping[str, float] | None
    words: tuple[str, ...]  # of every worker's command line
    slowdowns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Office:
    """What a post asks of the cluster that it belongs to."""

    papers: Callable[[str, bytes], Mapping[str, bytes]]  # for a worker's name and its request, the files it is to have
    join: Callable[[], str]  # the coordinator's address
    tell: Callable[[str], None]  # how a process ended
    note: Callable[[str], None]  # what is waited for


class Crew:
    """`begin` once, `follow` again and again, `stop` at the end."""

    def __init__(self, name: str, wanted: Wanted, office: Office) -> None:
        self._name, self._wanted, self._office = name, wanted, office
        self._groups: dict[str, PlacementGroup] = {}  # by node; under "" the one that is spread over all
        self._posts: dict[str, tuple[str, Post]] = {}  # by worker's name: its node's id or "", and the post
        self._short_since_s: float | None = None
        self._told = ""

    def num_to_expect(self) -> int:
        """How many workers a cluster that starts now is to wait for."""
        return self._wanted.num_workers or max(1, sum(num_on(node, self._wanted.resources) for node in nodes()))

    def begin(self) -> None:
        """Give back the places of a former life, and ask Ray for those of a fixed number, spread over nodes and GPUs.

        Where the number follows the nodes, `follow` asks.
        """
        for former in _groups_named(self._name):
            _remove(get_placement_group(former))
        if number := self._wanted.num_workers:
            found = nodes()
            bundle = bundle_for_all(found, number, self._wanted.resources)
            self._groups[""] = placement_group([bundle] * number, strategy="SPREAD", name=self._new_name())
            share = share_of_host(found, number)
            for index, worker in enumerate(free_names((), number)):
                self._fill(worker, "", index, bundle, share)

    def follow(self) -> None:
        """See what became of the nodes."""
        found = nodes()
        if self._wanted.num_workers:
            self._look_for_room(found, self._wanted.num_workers, bundle_for_all(found, self._wanted.num_workers, self._wanted.resources))
            return
        for node_id in set(self._groups) - {node.node_id for node in found}:
            self._leave(node_id)
        for node in found:
            if node.node_id not in self._groups and (number := num_on(node, self._wanted.resources)):
                self._settle(node, number, found)
        if not self._groups:
            self._look_for_room(found, 1, self._wanted.resources or {"CPU": 1.0})

    def lives(self) -> dict[str, dict[str, object]]:
        """Of each worker that runs: what it announced."""
        return {name: dict(post.announced) for name, (_, post) in sorted(self._posts.items()) if post.announced}

    def stop(self) -> None:
        """End all workers and give back what they had."""
        posts = [post for _, post in self._posts.values()]
        for post in posts:
            post.dismiss()
        for post in posts:
            post.close()
        for group in self._groups.values():
            _remove(group)
        self._posts, self._groups = {}, {}

    def _settle(self, node: RayNode, number: int, found: Sequence[RayNode]) -> None:
        bundle = bundle_of(node, self._wanted.resources)
        pinned = [{_NODE_LABEL: node.node_id}] * number
        group = placement_group([bundle] * number, strategy="PACK", name=self._new_name(), bundle_label_selector=pinned)
        self._groups[node.node_id] = group
        share = sum(num_on(other, self._wanted.resources) for other in found if other.host == node.host)
        for index, worker in enumerate(free_names(self._posts, number)):
            self._fill(worker, node.node_id, index, bundle, max(1, share))

    def _new_name(self) -> str:
        """Ray wants each name once, and a group that was removed keeps its own for a while."""
        return f"{self._name}-{secrets.token_hex(4)}"

    def _leave(self, node_id: str) -> None:
        """The node is gone, and its workers with it."""
        for worker in [name for name, (place, _) in self._posts.items() if place == node_id]:
            _, post = self._posts.pop(worker)
            post.dismiss()
        _remove(self._groups.pop(node_id))

    def _fill(self, worker: str, node_id: str, index: int, bundle: Mapping[str, float], share: int) -> None:
        number = int(worker[1:]) - 1
        slow = self._wanted.slowdowns[number] if number < len(self._wanted.slowdowns) else 1.0
        words = [*self._wanted.words, f"--id={worker}", f"--share-with={share}", f"--slowdown={slow}"]
        if "GPU" not in bundle and not any(word.startswith("--device=") for word in words):
            words.append("--device=cpu")  # a GPU that Ray did not reserve is somebody else's
        post = Post(worker, Seat(self._groups[node_id], index, dict(bundle)), words, self._office)
        self._posts[worker] = (node_id, post)
        post.start()

    def _look_for_room(self, found: Sequence[RayNode], number: int, bundle: Mapping[str, float]) -> None:
        """Tell a shortage once it has lasted, and once."""
        why, now_s = shortage(found, number, bundle), time.monotonic()
        self._short_since_s = (self._short_since_s or now_s) if why else None
        if self._short_since_s is not None and now_s - self._short_since_s > SHORTAGE_S and why != self._told:
            self._told = why
            self._office.note(why)


@dataclass(frozen=True, slots=True)
class Seat:
    """A place that Ray keeps for one worker."""

    group: PlacementGroup
    index: int
    bundle: Mapping[str, float]

    def actor(self, name: str) -> Any:
        """Made there as soon as there is room; Ray makes it again, without end, when it is lost."""
        own = {key: amount for key, amount in self.bundle.items() if key not in ("CPU", "GPU", "memory")}
        more: dict[str, Any] = {"resources": own} if own else {}
        if "memory" in self.bundle:
            more["memory"] = self.bundle["memory"]
        return (
            ray.remote(WorkerActor)
            .options(
                num_cpus=self.bundle.get("CPU", 0.0),
                num_gpus=self.bundle.get("GPU", 0.0),
                max_restarts=-1,
                max_concurrency=4,  # one waits for the process, another ends it
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.index),
                **more,
            )
            .remote()
        )


class Post:
    """One worker: its actor, and the thread that begins its process again whenever it has ended."""

    def __init__(self, name: str, seat: Seat, words: Sequence[str], office: Office) -> None:
        self.name, self._seat, self._words, self._office = name, seat, words, office
        self.announced: Mapping[str, object] = {}
        self._is_dismissed = threading.Event()
        self._actor: Any = None
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def dismiss(self) -> None:
        """Ask for its end, without waiting."""
        self._is_dismissed.set()
        if self._actor is not None:
            self._actor.stop.remote()

    def close(self) -> None:
        """Wait for the end of its process, and end the actor."""
        if (actor := self._actor) is not None:
            try:
                ray.get(actor.stop.remote(), timeout=STOP_LIMIT_S)
            except RayError as error:
                log.info("%s did not end by itself: %s", self.name, _first_line(error))
            ray.kill(actor)
        self._thread.join(STOP_LIMIT_S)

    def _keep(self) -> None:
        attempt = 0
        while not self._is_dismissed.is_set():
            began_s = time.monotonic()
            told = self._work_once()
            self.announced = {}
            if self._is_dismissed.is_set():
                return
            if told:
                self._office.tell(told)
            attempt = 0 if time.monotonic() - began_s > STEADY_S else attempt
            self._is_dismissed.wait(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1

    def _work_once(self) -> str:
        """From a key to the end of the process; how it ended. Empty where Ray starts the actor again: the coordinator tells the loss."""
        try:
            actor = self._actor = self._actor or self._seat.actor(self.name)
            request = ray.get(actor.request.remote(self.name))
            papers = self._office.papers(self.name, request)
            words = [*self._words, f"--join={self._office.join()}"]
            self.announced = ray.get(actor.begin.remote(self.name, words, papers))
            return str(ray.get(actor.ended.remote()))
        except ActorDiedError as error:
            self._actor = None  # for good: Ray will not start it again
            return "" if self._is_dismissed.is_set() else f"{self.name}: {_first_line(error)}"
        except RayActorError as error:
            log.info("%s: %s", self.name, _first_line(error))
            return ""
        except (RayError, NoodleError) as error:
            return f"{self.name}: {_reason(error)}"


def nodes() -> tuple[RayNode, ...]:
    return living(ray.nodes())


def _groups_named(begins: str) -> list[str]:
    """Of the placement groups that there are."""
    found = placement_group_table().values()
    return [group["name"] for group in found if group["name"].startswith(f"{begins}-") and group["state"] != "REMOVED"]


def _remove(group: PlacementGroup) -> None:
    try:
        remove_placement_group(group)
    except RayError as error:
        log.warning("a placement group stays behind: %s", _first_line(error))


def _reason(error: Exception) -> str:
    """Ours where it is ours: Ray wraps what an actor raised."""
    cause = getattr(error, "cause", None)
    return str(cause) if isinstance(cause, NoodleError) else _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

"""The named, detached actor of a cluster on Ray: it holds the authority, runs the coordinator as a process, and keeps the workers.

It lives until `down`, whatever becomes of the program that started it. When it is lost Ray starts it again, and it takes up what lies in
its folder: the authority, the journal, the address. Its workers go with it and are started anew.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from engine.data.errors import NoodleError
from engine.files import make_folder, read_document, replace_whole
from engine.service.addresses import is_loopback
from engine.service.on_ray.child import Child
from engine.service.on_ray.crew import FOLLOW_S, PAUSES_S, STEADY_S, Crew, Office, Wanted
from engine.service.on_ray.worker_actor import own_host
from engine.service.options import Role
from engine.service.trust import certificates
from engine.service.trust.local_tokens import own_folder

log = logging.getLogger(__name__)

NAMESPACE = "noodlecore"
START_LIMIT_S = 90.0
COORDINATOR, OPERATOR = "coordinator", "operator"
KEPT_SENTENCES = 20


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, in plain data. `run` tells one cluster from an earlier one of the same name; `listen` is HOST:PORT, and a loopback
    host stands for the node's own address.
    """

    name: str
    run: str
    coordinator_words: tuple[str, ...]
    listen: str
    state_dir: str  # empty: a folder of the run
    num_workers: int
    resources: Mapping[str, float] | None
    worker_words: tuple[str, ...]
    slowdowns: tuple[float, ...]


class Keeper:
    """Begins with its constructor, so that Ray need do no more than make it again."""

    def __init__(self, **order: object) -> None:
        logging.basicConfig(level="INFO")
        self._order = Order(**order)  # type: ignore[arg-type]
        self._folder = own_folder() / f"ray-{self._order.name}-{self._order.run}"
        self._certs = self._folder / "certs"
        self._lock, self._is_stopping, self._is_known = threading.Lock(), threading.Event(), threading.Event()
        self._address, self._failure = "", ""
        self._sentences: list[str] = []  # of processes that ended
        self._notes: list[str] = []  # of what is waited for
        self._child: Child | None = None
        wanted = Wanted(self._order.num_workers, self._order.resources, self._order.worker_words, self._order.slowdowns)
        office = Office(self._papers, lambda: self._address, self._tell, self._note)
        self._crew = Crew(f"{self._order.name}-{self._order.run}", wanted, office)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._keep_coordinator, self._keep_crew)]
        for thread in self._threads:
            thread.start()

    def started(self) -> dict[str, object]:
        """Waits until the coordinator's address is known, or until it is known why there will be none."""
        self._is_known.wait(START_LIMIT_S)
        return self.state()

    def state(self) -> dict[str, object]:
        """`address` of the coordinator and its `pid`; `failure` for good; `sentences` of processes that ended, `notes` of what is waited
        for; what the workers `announced`.
        """
        with self._lock:
            told = {"sentences": tuple(self._sentences), "notes": tuple(self._notes)}
            pid = 0 if self._child is None else self._child.process.pid
        return {"address": self._address, "pid": pid, "failure": self._failure, **told, "announced": self._crew.lives()}

    def admit(self, request: bytes, name: str = OPERATOR) -> dict[str, bytes]:
        """For the key of whoever started the cluster, or serves its API: a certificate that lets them operate it, and the authority's."""
        with self._lock:
            certificate = self._signed(request, name, Role.OPERATOR)
        return {"node.pem": certificate, "ca.pem": (self._certs / "ca.pem").read_bytes()}

    def stop(self) -> None:
        """End everything, and leave nothing on disk but what --state-dir names."""
        self._is_stopping.set()
        self._is_known.set()
        self._threads[1].join(START_LIMIT_S)
        self._crew.stop()
        if self._child is not None:
            self._child.stop()
        self._threads[0].join(START_LIMIT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the coordinator ---------------------------------------------------------------------------------------------
    def _keep_coordinator(self) -> None:
        attempt = 0
        while not self._is_stopping.is_set():
            began_s = time.monotonic()
            try:
                self._serve()
            except NoodleError as error:
                if self._is_stopping.is_set():
                    return
                if not self._address:
                    self._failure = str(error)
                    self._is_known.set()
                    return
                self._tell(str(error))
            attempt = 0 if time.monotonic() - began_s > STEADY_S else attempt
            self._is_stopping.wait(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1

    def _serve(self) -> None:
        """One life of the coordinator; raises NoodleError if it does not come up."""
        listen = self._listen()
        words = [*self._order.coordinator_words, f"--workers={self._crew.num_to_expect()}", f"--listen={listen}", *self._own_papers(listen)]
        words += [f"--state-dir={self._order.state_dir or self._folder / 'state'}", "--exit-with-parent", "--log-level=WARNING"]
        with self._lock:
            if self._is_stopping.is_set():
                return
            child = self._child = Child(COORDINATOR, [COORDINATOR, *words])
        address = str(child.announced()["address"])
        replace_whole(self._folder / "listen", address.encode())
        self._address = _reached_by(address)
        self._is_known.set()
        ended = child.ended()
        if not self._is_stopping.is_set():
            self._tell(ended)

    def _listen(self) -> str:
        """Where a former life of it listened on this node, so that clients and workers find it again; else what was asked for."""
        host, _, port = self._order.listen.rpartition(":")
        host = _bracketed(own_host()) if is_loopback(self._order.listen) else host
        kept = self._folder / "listen"
        former = read_document(kept, "an address") if kept.exists() else ""
        return former if former.rpartition(":")[0] == host else f"{host}:{port}"

    def _own_papers(self, listen: str) -> list[str]:
        make_folder(self._folder)
        with self._lock:
            if not (self._certs / "ca.key").exists():
                certificates.make_authority(self._certs, f"{self._order.name} on Ray")
            hosts = [own_host(), listen.rpartition(":")[0].strip("[]")]
            pem, key = self._certs / f"{COORDINATOR}.pem", self._certs / f"{COORDINATOR}.key"
            if not pem.exists() or not set(hosts) <= set(certificates.read_certificate(pem).hosts):
                with contextlib.suppress(FileNotFoundError):
                    pem.unlink()
                certificates.issue(self._certs, COORDINATOR, Role.COORDINATOR, hosts)
        return [f"--tls-cert={pem}", f"--tls-key={key}", f"--tls-ca={self._certs / 'ca.pem'}"]

    # --- the workers -------------------------------------------------------------------------------------------------
    def _keep_crew(self) -> None:
        self._is_known.wait()
        if self._failure or self._is_stopping.is_set():
            return
        try:
            self._crew.begin()
            while not self._is_stopping.wait(FOLLOW_S):
                self._crew.follow()
        except Exception as error:  # a cluster whose nodes nobody follows any more says so
            log.exception("the nodes are not followed any more")
            self._failure = f"the nodes of the Ray cluster are not followed any more: {type(error).__name__}: {error}"

    def _papers(self, name: str, request: bytes) -> Mapping[str, bytes]:
        with self._lock:
            certificate = self._signed(request, name, Role.WORKER)
            revoked = (self._certs / "revoked.pem").read_bytes()
        return {"node.pem": certificate, "ca.pem": (self._certs / "ca.pem").read_bytes(), "revoked.pem": revoked}

    def _signed(self, request: bytes, name: str, role: Role) -> bytes:
        """A certificate for a new key of that name; the one before counts no more for whoever reads the list from now on."""
        if (self._certs / f"{name}.pem").exists():
            certificates.revoke(self._certs, name)
        return certificates.admit(self._certs, request, name, role)

    def _tell(self, sentence: str) -> None:
        with self._lock:
            self._sentences = [*self._sentences, sentence][-KEPT_SENTENCES:]
        log.warning("%s", sentence)

    def _note(self, sentence: str) -> None:
        with self._lock:
            self._notes = [*self._notes, sentence][-KEPT_SENTENCES:]
        log.info("%s", sentence)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reached_by(address: str) -> str:
    """The address that workers and clients of other nodes connect to."""
    host, _, port = address.rpartition(":")
    return f"{_bracketed(own_host())}:{port}" if host.strip("[]") in ("0.0.0.0", "::") else address

"""A worker's place on a Ray node: an actor that starts the ordinary worker as a process, with a certificate of its own.

Ray makes it from its class alone, and makes it again on another node when it is lost: what it needs comes with each call, as plain data.
Its key never leaves the node.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.data.errors import Unavailable
from engine.files import replace_whole
from engine.service.on_ray.child import Child
from engine.service.on_ray.key_folder import KeyFolder
from engine.service.trust import certificates


class WorkerActor:
    """`request`, `begin` and `ended`, in this order and again; `stop` at any time."""

    def __init__(self) -> None:
        self._lock, self._is_stopping = threading.Lock(), False
        self._papers: KeyFolder | None = None
        self._child: Child | None = None

    def request(self, name: str) -> bytes:
        """Makes a key; returns what asks an authority for its certificate, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._forget()
        self._papers = KeyFolder()
        certificates.write_key(self._papers.path / "node.key", key)
        return certificates.request_for(key, name).public_bytes(serialization.Encoding.PEM)

    def begin(self, name: str, words: Sequence[str], papers: Mapping[str, bytes]) -> dict[str, object]:
        """Start `worker WORDS` with the certificate for the key; `papers` are files by name. Returns what it announces."""
        if self._papers is None:
            raise AssertionError("a key was asked for first")
        folder = self._papers.path
        for file, content in papers.items():
            replace_whole(folder / file, content)
        shown = [f"--tls-key={folder / 'node.key'}", f"--tls-cert={folder / 'node.pem'}", f"--tls-ca={folder / 'ca.pem'}"]
        listen = f"--listen={_bracketed(own_host())}:0"
        with self._lock:
            if self._is_stopping:
                raise Unavailable(f"{name} is to end")
            self._child = Child(name, ["worker", *words, listen, *shown, "--exit-with-parent"])
        return {**self._child.announced(), "host": own_host()}

    def ended(self) -> str:
        """Waits for the end of the process; how it came about."""
        if self._child is None:
            raise AssertionError("it was begun first")
        return self._child.ended()

    def stop(self) -> None:
        """End the process and leave nothing of it on the node."""
        with self._lock:
            self._is_stopping = True
            if self._child is not None:
                self._child.stop()
        self._forget()

    def _forget(self) -> None:
        if self._papers is not None:
            self._papers.remove()
            self._papers = None


def own_host() -> str:
    """The address by which the nodes of the Ray cluster reach this one."""
    import ray

    return str(ray.util.get_node_ip_address())


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

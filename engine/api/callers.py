"""Who asks, and a connection to the cluster in their name.

A caller's key is a token of the cluster, and goes there as it is: the coordinator decides what it allows. Where this server has a list of
keys, or shows the cluster a certificate of its own, it must know its callers itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping

from starlette.requests import Request

from engine.api.problems import Problem
from engine.data.errors import InvalidInput
from engine.service.client import Client
from engine.service.options import Role
from engine.service.trust.access import Access

MAX_CLIENTS = 256
NO_KEY = "there is no key: send the header 'Authorization: Bearer KEY', where KEY is a token of the cluster (clients take it as api_key)"


def digest_of(key: str) -> bytes:
    """What this server keeps of a key on its list, and what the cluster is told of whose request it is."""
    return hashlib.sha256(key.encode()).digest()


class Callers:
    """Clients of the coordinator by key, the least recently used of them closed when there are many. `keys` are roles by `digest_of`."""

    def __init__(self, address: str, access: Access, keys: Mapping[bytes, Role] | None) -> None:
        self._address, self._access, self._keys = address, access, keys
        self._clients: OrderedDict[str | None, Client] = OrderedDict()

    async def client(self, request: Request, least: Role = Role.OPERATOR) -> Client:
        """For the caller of `request`. Raises Problem 401 or 403 where this server knows that the key does not do."""
        key = _key(request)
        if self._keys is not None:
            self._check(key, least)
            return await self._of(key, self._access, digest_of(key or ""))
        try:
            access = Access(key, self._access.trusted)
        except InvalidInput as e:
            raise _refused(str(e)) from e
        return await self._of(key, access)

    async def looker(self, request: Request) -> Client:
        """For whoever asks no more than whether the model is served: this server's own, where it knows its callers itself."""
        if self._keys is not None:
            return await self._of(None, self._access, digest_of(""))
        return await self.client(request, Role.VIEWER)

    def knows(self, request: Request) -> bool:
        """Whether a caller who was let in by `looker` may hear details."""
        return self._keys is None or self._role_of(_key(request) or "") is not None

    async def close(self) -> None:
        """Cancel all sessions and disconnect."""
        while self._clients:
            await self._clients.popitem()[1].close()

    def _check(self, key: str | None, least: Role) -> None:
        if key is None:
            raise _refused(NO_KEY)
        role = self._role_of(key)
        if role is None:
            raise _refused("this key is unknown here")
        if role < least:
            message = f"this key has the role {role.name.lower()}, and this needs the role {least.name.lower()}"
            raise Problem(403, message, "permission_error", code="insufficient_role")

    def _role_of(self, key: str) -> Role | None:
        return next((r for known, r in (self._keys or {}).items() if hmac.compare_digest(known, digest_of(key))), None)

    async def _of(self, key: str | None, access: Access, for_caller: bytes = b"") -> Client:
        """The cluster sees one caller behind all keys of a list of its own: it is told whose each request is."""
        if (client := self._clients.get(key)) is None:
            client = self._clients[key] = Client(self._address, access, for_caller)
        self._clients.move_to_end(key)
        idle = [k for k, c in self._clients.items() if not c.is_busy and k != key]
        for old in idle[: max(0, len(self._clients) - MAX_CLIENTS)]:
            await self._clients.pop(old).close()
        return client


def has_key(request: Request) -> bool:
    return _key(request) is not None


def _key(request: Request) -> str | None:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if kind.lower() == "bearer" else None


def _refused(message: str) -> Problem:
    return Problem(401, message, "authentication_error", code="invalid_api_key", headers={"www-authenticate": "Bearer"})

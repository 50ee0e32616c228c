"""The HTTP API in a replica of Ray Serve: the same application, behind Ray's proxy instead of a socket of its own.

Ray makes a replica from its class and plain data, and makes it again when it is lost or says that it is not well. Each has a key and a
certificate of its own, which the cluster's keeper signs; neither leaves the process. It imports no Serve: Serve wraps the class.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ray.exceptions import ActorUnavailableError

from engine.api.callers import Callers
from engine.api.options import ApiOptions
from engine.api.server import asgi_application
from engine.api.traced import Traced
from engine.data.errors import Unavailable
from engine.service.on_ray.options import RayPlace
from engine.service.on_ray.ray_cluster import find
from engine.service.options import Role
from engine.service.trust import certificates
from engine.service.trust.access import Access
from engine.service.trust.credentials import Trusted


class Replica:
    """One of several servers in front of the cluster of that name; all of them talk to its one coordinator."""

    def __init__(self, cluster: str, settings: Mapping[str, Any], keys: Mapping[bytes, str]) -> None:
        """`settings` are fields of ApiOptions, `keys` names of roles by the digest of their key. Raises NotFound without such a cluster."""
        self._keeper = find(RayPlace(on="ray", cluster_name=cluster))
        self._options = ApiOptions(**settings)
        self._keys = {digest: Role[role] for digest, role in keys.items()}
        self._address = ""

    async def __serve_build_asgi_app__(self) -> Traced:
        """Called by Serve once the constructor is done."""
        self._address = str((await self._keeper.state.remote())["address"])
        key, name = ec.generate_private_key(ec.SECP256R1()), f"api-{secrets.token_hex(8)}"
        request = certificates.request_for(key, name).public_bytes(serialization.Encoding.PEM)
        papers = await self._keeper.admit.remote(request, name)
        access = Access(None, Trusted(papers["ca.pem"], certificates.key_pem(key), papers["node.pem"]))
        return asgi_application(self._options, Callers(self._address, access, self._keys))

    async def check_health(self) -> None:
        """Called by Serve, which begins another replica for one that raises: the cluster began anew elsewhere, or is gone."""
        try:
            state = await self._keeper.state.remote()
        except ActorUnavailableError:
            return  # Ray starts it again, and it takes up its address
        if state["address"] != self._address:
            raise Unavailable(f"the coordinator is at {state['address'] or 'no address'} now, and was at {self._address}")

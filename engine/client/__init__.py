"""The client library: talk to a cluster from Python, or start one.

    from engine.client import Client, LocalCluster

    with LocalCluster(model="gpt2", num_workers=2) as cluster, cluster.client() as client:
        print(client.complete("Once upon a time", max_new_tokens=20).text)

`AsyncClient` has the same methods as coroutines. README.md beside this file has an example of each.
"""

from engine.client.answers import Completion, Token
from engine.client.async_client import AsyncClient, AsyncStream
from engine.client.client import Client, Stream
from engine.client.local_cluster import AsyncLocalCluster, LocalCluster

__all__ = ["AsyncClient", "AsyncLocalCluster", "AsyncStream", "Client", "Completion", "LocalCluster", "Stream", "Token"]

"""Each RPC of each service with values that no peer of ours sends: the answer is a reason, never INTERNAL or UNKNOWN."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.data.model import ModelRef
from engine.data.status import Phase
from engine.folders import cache_folder
from engine.model.sources.source import resolve
from engine.model.weights.tensor_files import read_folder
from engine.service.trust.access import Access, Metadata
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.service.reference import reference
from tests.service.running import Running, running
from tests.service.wrong_messages import GARBAGE, wrong_messages, wrong_numbers

SERVICES = [*pb.DESCRIPTOR.services_by_name.values(), *health_pb2.DESCRIPTOR.services_by_name.values()]
METHODS = [method for service in SERVICES for method in service.methods]
NUM_RANDOM = 12
ANSWER_S = 0.25  # a call that was taken and goes on has passed
REFUSAL_S = 30.0
# These end or change what the others are tried on, or measure for many seconds; they come last, or with what they refuse.
LAST = ("Unload", "Load", "Prepare", "Commit", "Drain", "Apply", "Register", "Report")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running("llama:tiny", 1) as found:
        yield found


def _order(method: Any) -> int:
    return LAST.index(method.name) + 1 if method.name in LAST else 0


def _has_numbers(kind: Descriptor) -> bool:
    return next(wrong_numbers(kind), None) is not None


def _address(cluster: Running, method: Any) -> str:
    return cluster.address if method.containing_service.name != "StageService" else cluster.status().nodes[0].address


@pytest.mark.parametrize("method", sorted(METHODS, key=_order), ids=lambda m: m.full_name)
def test_wrong_values_are_refused_with_a_reason(cluster: Running, method: Any) -> None:
    rng = random.Random(method.full_name)
    requests: list[bytes] = [m.SerializeToString() for m in wrong_messages(GetMessageClass(method.input_type), rng, NUM_RANDOM)]
    answers = cluster.wait(_send_all(cluster, method, [*requests, *GARBAGE]))
    wrong = [(content[:200], code, text) for content, code, text in answers if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)]
    assert not wrong, wrong[:5]
    if method.containing_service.file is pb.DESCRIPTOR:
        assert all(text for _, code, text in answers if code not in (grpc.StatusCode.OK, None)), "every refusal has a reason"
        codes = {content: code for content, code, _ in answers}
        assert codes[GARBAGE[0]] is grpc.StatusCode.INVALID_ARGUMENT, codes[GARBAGE[0]]
    assert cluster.status().cluster_id, "the coordinator goes on"


def _access(cluster: Running) -> Access:
    """Of a worker of the cluster: what comes from strangers is refused before it is read."""
    return Access(cluster.cluster.tokens.worker)


async def _send_all(
    cluster: Running, method: Any, requests: list[bytes], limit_s: float = ANSWER_S
) -> list[tuple[bytes, grpc.StatusCode | None, str]]:
    access, address = _access(cluster), await asyncio.to_thread(_address, cluster, method)
    async with access.channel(address) as channel:
        limits = dict.fromkeys(GARBAGE, REFUSAL_S)
        return [(content, *await _send(channel, access.metadata, method, content, limits.get(content, limit_s))) for content in requests]


async def _send(
    channel: grpc.aio.Channel, metadata: Metadata, method: Any, content: bytes, limit_s: float
) -> tuple[grpc.StatusCode | None, str]:
    """The status of one call; None while it goes on."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    answer = call(iter([content]) if method.client_streaming else content, metadata=metadata)
    try:
        async with asyncio.timeout(limit_s):
            return await answer.code(), await answer.details() or ""
    except TimeoutError:
        answer.cancel()
        return None, ""


@pytest.mark.parametrize("method", [m for m in METHODS if _has_numbers(m.input_type)], ids=lambda m: m.full_name)
def test_a_number_that_a_field_cannot_have_is_refused_by_name(cluster: Running, method: Any) -> None:
    """Where it comes in, so that it is never shown, journalled, planned with or sent on."""
    wrong = {message.SerializeToString(): words for message, words in wrong_numbers(method.input_type)}
    for content, code, text in cluster.wait(_send_all(cluster, method, [*wrong])):
        assert (code, text[: len(wrong[content])]) == (grpc.StatusCode.INVALID_ARGUMENT, wrong[content])


def test_the_health_of_a_server_can_be_watched(cluster: Running) -> None:
    async def first() -> int:
        access = _access(cluster)
        async with access.channel(cluster.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), metadata=access.metadata)
            async for answer in watch:
                return int(answer.status)
        return 0

    assert cluster.wait(first()) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", ["Load", "Prepare"])
def test_items_that_the_model_does_not_have_are_refused(cluster: Running, method: str) -> None:
    num_items = cluster.status().model.num_items
    cluster.wait(_send_all(cluster, _method("StageService", "Unload"), [b""], REFUSAL_S))  # what the tests before this one ordered
    order = _order_of(num_items, plan_version=900)
    order.start, order.stop = 1, num_items + 1
    ((_, code, text),) = cluster.wait(_send_all(cluster, _method("StageService", method), [order.SerializeToString()], REFUSAL_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and f"the model has items [0, {num_items})" in text


def test_a_kind_of_device_that_nobody_knows_is_refused(cluster: Running) -> None:
    spec = pb.NodeSpec(node_id="w9", address="127.0.0.1:9", num_threads=1, device_type="abacus")
    request = pb.RegisterRequest(spec=spec, state="ready")
    ((_, code, text),) = cluster.wait(_send_all(cluster, _method("Control", "Register"), [request.SerializeToString()], REFUSAL_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "device_type 'abacus' is unknown" in text


def _method(service: str, name: str) -> Any:
    return next(m for m in METHODS if m.name == name and m.containing_service.name == service)


def _order_of(num_items: int, plan_version: int) -> pb.LoadRequest:
    """To load the first item of the model that the cluster serves."""
    folder = resolve(ModelRef("llama:tiny", 0), cache_dir=cache_folder())
    model, fingerprint = pb.ModelRef(model="llama:tiny", random_weights=0, dtype="float32"), read_folder(folder).fingerprint
    return pb.LoadRequest(model=model, folder=str(folder), fingerprint=fingerprint, plan_version=plan_version, stop=1, num_items=num_items)


def test_a_stage_that_is_given_up_while_it_is_prepared_is_stale(cluster: Running) -> None:
    """Unload is sent later and later into a Prepare, until it comes after its end: at no moment is the answer INTERNAL."""
    status = cluster.status()
    seen = cluster.wait(_give_up_later_and_later(_access(cluster), status.nodes[0].address, status.model.num_items))
    assert seen[-1] is grpc.StatusCode.OK and set(seen[:-1]) == {grpc.StatusCode.ABORTED}, seen


async def _give_up_later_and_later(access: Access, address: str, num_items: int) -> list[grpc.StatusCode]:
    seen: list[grpc.StatusCode] = []
    async with access.channel(address) as channel:
        stub = rpc.StageServiceStub(channel)
        await stub.Unload(pb.UnloadRequest(), metadata=access.metadata)  # what the tests before this one ordered
        while grpc.StatusCode.OK not in seen:
            version = 1000 + len(seen)
            preparing = stub.Prepare(_order_of(num_items, version), metadata=access.metadata)
            await asyncio.sleep(0.001 * 1.5 ** len(seen))
            await stub.Unload(pb.UnloadRequest(plan_version=version), metadata=access.metadata)
            code = await preparing.code()
            seen.append(code)
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.ABORTED), f"{code}: {await preparing.details()}"
            assert len(seen) < 24, f"no Prepare ended before its Unload: {await preparing.details()}"
    return seen


def test_orders_that_are_not_the_coordinators_cost_a_pause_and_no_token(cluster: Running) -> None:
    """Its stage is dropped, and then replaced by one of a plan that comes much later: the worker finds back, session by session."""
    prompt, access = (5, 6, 7, 8), _access(cluster)
    for version in (0, 10**6):
        status = cluster.status()
        cluster.wait(_order_strangely(access, status.nodes[0].address, version, status.model.num_items))
        request = cluster.request(prompt, 12, ignore_eos=True)
        assert [c.token_id for c in cluster.generate(request).chunks if c.index >= 0] == reference("llama:tiny", prompt, 12)
    cluster.until(lambda status: status.phase is Phase.SERVING, "the cluster serves")


async def _order_strangely(access: Access, address: str, version: int, num_items: int) -> None:
    """A stage of that plan; 0: none at all."""
    folder = str(resolve(ModelRef("llama:tiny", 0), cache_dir=cache_folder()))
    model, fingerprint = pb.ModelRef(model="llama:tiny", random_weights=0, dtype="float32"), read_folder(Path(folder)).fingerprint
    async with access.channel(address) as channel:
        stub = rpc.StageServiceStub(channel)
        if not version:
            await stub.Unload(pb.UnloadRequest(), metadata=access.metadata)
            return
        order = pb.LoadRequest(model=model, folder=folder, fingerprint=fingerprint, plan_version=version)
        order.stop = order.num_items = num_items
        await stub.Load(order, metadata=access.metadata)

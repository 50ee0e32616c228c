"""The routes: each reads a request, asks the cluster in the caller's name, and writes the answer."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import PurePath
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from engine.api.answering import Answer, unless_gone
from engine.api.bodies import ChatBody, CompletionBody, ResponseBody, read_body
from engine.api.callers import NO_KEY, Callers, has_key
from engine.api.cluster_facts import ClusterFacts
from engine.api.document import openapi_document
from engine.api.endpoints import chat, completions, responses
from engine.api.endpoints.response_events import ResponseDocuments
from engine.api.options import ApiOptions
from engine.api.problems import Problem, problem_of
from engine.data.errors import NoodleError
from engine.data.json_text import json_text
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client
from engine.service.errors import incident
from engine.service.options import Role

MAX_BODY_BYTES = 4 * 2**20
PING_S = 15
NO_EMBEDDINGS = "embeddings are not served here: the last stage gives the next token, not a vector of the text"
log = logging.getLogger(__name__)


class Api:
    """The handlers and what they share."""

    def __init__(self, options: ApiOptions, callers: Callers) -> None:
        self._options, self._callers, self._facts = options, callers, ClusterFacts()

    def application(self) -> Starlette:
        """To be served by any ASGI server."""
        routes = [
            Route("/v1/models", _guarded(self.models)),
            Route("/v1/models/{name:path}", _guarded(self.model)),
            Route("/v1/chat/completions", _guarded(self.chat), methods=["POST"]),
            Route("/v1/completions", _guarded(self.completions), methods=["POST"]),
            Route("/v1/responses", _guarded(self.responses), methods=["POST"]),
            Route("/v1/embeddings", _guarded(self.embeddings), methods=["POST"]),
            Route("/health", _guarded(self.health)),
            Route("/metrics", _guarded(self.metrics)),
            Route("/version", _guarded(self.version)),
            Route("/openapi.json", _guarded(self.openapi)),
            Route("/docs", _guarded(self.docs)),
        ]
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(self._options.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
        handlers: dict[Any, Callable[..., Awaitable[Response]]] = {
            Problem: _problem,
            NoodleError: _noodle_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
        }
        return Starlette(
            routes=routes, middleware=[cors] if self._options.cors else [], exception_handlers=handlers, lifespan=self._lifespan
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self._callers.close()

    # --- answers --------------------------------------------------------------------------------------------------
    async def chat(self, request: Request) -> Response:
        body = read_body(ChatBody, await _content(request))
        client = await self._serving(request, body.model)
        answer = Answer(client, chat.requests_of(body, self._options.max_tokens))
        await answer.begin()
        return await _answered(request, answer, chat.ChatDocuments(body, answer), body.stream)

    async def completions(self, request: Request) -> Response:
        body = read_body(CompletionBody, await _content(request))
        client = await self._serving(request, body.model)
        answer = Answer(client, completions.requests_of(body))
        await answer.begin()
        return await _answered(request, answer, completions.CompletionDocuments(body, answer), body.stream)

    async def responses(self, request: Request) -> Response:
        body = read_body(ResponseBody, await _content(request))
        client = await self._serving(request, body.model)
        answer = Answer(client, responses.requests_of(body, self._options.max_tokens))
        await answer.begin()
        return await _answered(request, answer, ResponseDocuments(body, answer), body.stream, named=True)

    async def embeddings(self, request: Request) -> Response:
        await self._callers.client(request)
        raise Problem(501, NO_EMBEDDINGS, code="unsupported")

    async def _serving(self, request: Request, model: str) -> Client:
        """The caller's client of a cluster that serves `model`."""
        client = await self._callers.client(request)
        name = self._name(await self._facts.serving(client))
        if model != name:
            message = f"the model {model[:80]!r} is not served here: {name!r} is"
            raise Problem(404, message, param="model", code="model_not_found")
        return client

    def _name(self, status: ClusterStatus) -> str:
        return self._options.model_name or public_name(status.model.name)

    # --- the server -----------------------------------------------------------------------------------------------
    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model(await self._status(request))]})

    async def model(self, request: Request) -> Response:
        found = self._model(await self._status(request))
        if request.path_params["name"] != found["id"]:
            raise Problem(
                404, f"the model {request.path_params['name'][:80]!r} is not served here: {found['id']!r} is", code="model_not_found"
            )
        return JSONResponse(found)

    async def _status(self, request: Request) -> ClusterStatus:
        return await self._facts.status(await self._callers.client(request, Role.VIEWER))

    def _model(self, status: ClusterStatus) -> dict[str, Any]:
        return {
            "id": self._name(status),
            "object": "model",
            "created": 0,
            "owned_by": "noodlecore",
            "max_model_len": status.model.context_tokens,
            "random_weights": status.model.random_weights,
        }

    async def health(self, request: Request) -> Response:
        """Needs no key, and says no more than whether the model is served: load balancers ask."""
        try:
            status = await self._facts.status(await self._callers.looker(request))
        except (NoodleError, Problem) as e:
            problem = e if isinstance(e, Problem) else problem_of(e)
            if problem.status not in (401, 403):
                detail = problem.message if self._callers.knows(request) else ""
                return JSONResponse({"status": "unavailable", "detail": detail}, 503)
            return JSONResponse({"status": "unknown", "detail": "the cluster tells nobody without a key: send one to see more"})
        is_serving = status.phase is Phase.SERVING
        detail = "" if is_serving or not self._callers.knows(request) else status.failure or status.detail
        return JSONResponse({"status": "ok" if is_serving else str(status.phase).lower(), "detail": detail}, 200 if is_serving else 503)

    async def metrics(self, request: Request) -> Response:
        """What this server counts itself; the cluster's own figures are at the coordinator's `--metrics-port`."""
        await self._status(request)
        from engine.api.metering import exposition

        return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": version("noodlecore")})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi_document())

    async def docs(self, request: Request) -> Response:
        from engine.api.document import docs_page

        return HTMLResponse(docs_page())


def public_name(model: str) -> str:
    """What callers call a model: a hub id as it is, a folder by its own name, for where it lies is nobody's business."""
    is_path = model.startswith((".", "~")) or PurePath(model).is_absolute()
    return PurePath(model).name if is_path else model


async def _answered(request: Request, answer: Answer, documents: Any, is_streamed: bool, named: bool = False) -> Response:
    if not is_streamed:
        return JSONResponse(documents.whole(await unless_gone(request, answer)))
    return EventSourceResponse(_events(answer, documents, named), ping=PING_S, sep="\n", headers={"x-accel-buffering": "no"})


async def _events(answer: Answer, documents: Any, named: bool) -> AsyncIterator[ServerSentEvent]:
    """Of a stream, to its end; what fails in the middle is the last event."""
    try:
        async for document in documents.chunks():
            yield ServerSentEvent(_json(document), event=document["type"] if named else None)
        if not named:
            yield ServerSentEvent("[DONE]")
    except Problem as problem:
        yield ServerSentEvent(_json(problem.document()))
    except Exception as e:
        yield ServerSentEvent(_json(problem_of(incident(e)).document()))
    finally:
        answer.close()


def _json(document: Any) -> str:
    return json_text(document, compact=True)


async def _content(request: Request) -> bytes:
    """The body; raises Problem 413 before it is read where it says that it is too large, and as soon as it is."""
    limit = f"the body has more than {MAX_BODY_BYTES // 2**20} MiB: send less"
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise Problem(413, limit, code="too_large")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise Problem(413, limit, code="too_large")
    return bytes(content)


# --- what went wrong --------------------------------------------------------------------------------------------------
async def _problem(_: Request, error: Problem) -> Response:
    return error.response()


async def _noodle_error(request: Request, error: NoodleError) -> Response:
    problem = problem_of(error)
    if problem.status == 401 and not has_key(request):
        problem = Problem(401, NO_KEY, problem.kind, code=problem.code, headers=problem.headers)
    return problem.response()


async def _http_error(request: Request, error: HTTPException) -> Response:
    says = {
        404: f"there is nothing at {request.url.path[:80]}: /docs lists what is",
        405: f"{request.method} is not for {request.url.path[:80]}",
    }
    return Problem(error.status_code, says.get(error.status_code, error.detail), code="not_found", headers=error.headers or {}).response()


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A bug reaches a caller as an incident id, and the log with all it takes to find it; once, not once more by the server."""

    @functools.wraps(handler)
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except (Problem, NoodleError, HTTPException, ClientDisconnect):
            raise
        except Exception as e:
            return problem_of(incident(e)).response()

    return guarded

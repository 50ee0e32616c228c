"""The OpenAPI document, made from the bodies that the server reads, and a page that shows it without anything from elsewhere."""

from __future__ import annotations

import functools
import html
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from engine.api.bodies import Body, ChatBody, CompletionBody, ResponseBody

_POSTS: dict[str, tuple[type[Body], str]] = {
    "/v1/chat/completions": (ChatBody, "Answer a conversation"),
    "/v1/completions": (CompletionBody, "Continue a text"),
    "/v1/responses": (ResponseBody, "Answer; nothing is stored"),
}
_GETS = {
    "/v1/models": "The model that is served",
    "/health": "Whether it is served, with the phase; 503 if not",
    "/metrics": "Figures of this server in Prometheus' text format",
    "/version": "Of NoodleCore",
}
_OPEN = ("/health", "/version")  # for everybody
_PROBLEMS = {
    "400": "The request is wrong; `param` names the field",
    "401": "There is no key, or it is unknown",
    "403": "The key's role does not allow this",
    "404": "There is no such model",
    "413": "The body is too large",
    "429": "The cluster is full; Retry-After says when to try again",
    "500": "A bug; the message is an incident id to look for in the log",
    "503": "The model is not served yet or not any more",
}


@functools.cache
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, schemas = models_json_schema([(cls, "validation") for cls, _ in _POSTS.values()], ref_template="#/components/schemas/{model}")
    definitions = {**schemas["$defs"], "Problem": _PROBLEM}
    paths: dict[str, Any] = {path: {"get": _get(path, about)} for path, about in _GETS.items()}
    paths |= {path: {"post": _post(path, cls, about)} for path, (cls, about) in _POSTS.items()}
    paths["/v1/models/{name}"] = {
        "get": {
            **_get("/v1/models/{name}", "One model"),
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NoodleCore",
            "version": version("noodlecore"),
            "description": "OpenAI's API, answered by a pipeline of machines.",
        },
        "paths": paths,
        "components": {"schemas": definitions, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _get(path: str, about: str) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else "application/json"
    answers: dict[str, Any] = {"200": {"description": "Done", "content": {kind: {}}}}
    if path in _OPEN:
        about += "; needs no key"
    if path == "/health":
        answers["503"] = {"description": "Not served", "content": {kind: {}}}
    elif path != "/version":
        answers |= _problems("401", "403", "404", "429", "500", "503")
    open_to_all: dict[str, Any] = {"security": []} if path in _OPEN else {}
    return {
        **open_to_all,
        "summary": about,
        "operationId": "get" + path.replace("/", "_").replace("{", "").replace("}", ""),
        "responses": answers,
    }


def _post(path: str, cls: type[Body], about: str) -> dict[str, Any]:
    return {
        "summary": about,
        "operationId": "post" + path.replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{cls.__name__}"}}}},
        "responses": {
            "200": {
                "description": "The answer; with `stream` as server-sent events",
                "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}},
            },
            **_problems(*_PROBLEMS),
        },
    }


def _problems(*codes: str) -> dict[str, Any]:
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": _PROBLEMS[code], "content": schema} for code in codes}


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}"
    "code{font-family:ui-monospace,monospace}h2{margin-top:2rem}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}"
    "td,th{border-color:#333}a{color:#8bf}}"
)


@functools.cache
def docs_page() -> str:
    """HTML; every field of every request with what it may be."""
    document = openapi_document()
    parts = ["<h1>NoodleCore API</h1><p>Requests carry <code>Authorization: Bearer KEY</code>. <a href='openapi.json'>openapi.json</a></p>"]
    parts.append("<table><tr><th>path</th><th></th></tr>" + "".join(_row(f"GET {p}", about) for p, about in _GETS.items()) + "</table>")
    for path, (cls, about) in _POSTS.items():
        schema = document["components"]["schemas"][cls.__name__]
        required = set(schema.get("required", ()))
        rows = [_row(name + (" *" if name in required else ""), _kind(field)) for name, field in schema["properties"].items()]
        parts.append(f"<h2>POST {html.escape(path)}</h2><p>{html.escape(about)}. * is required.</p><table>{''.join(rows)}</table>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>NoodleCore API</title>"
        f"<style>{_STYLE}</style>{''.join(parts)}</html>"
    )


def _row(name: str, about: str) -> str:
    return f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(about)}</td></tr>"


_MARKS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _kind(schema: dict[str, Any]) -> str:
    """What a field may be, in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(form) for form in schema["anyOf"] if form.get("type") != "null")
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return ", ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    words = str(schema.get("type", "anything"))
    if words == "array":
        words = f"list of {_kind(schema.get('items', {}))}"
    limits = [f"{mark} {schema[key]}" for key, mark in _MARKS.items() if key in schema]
    return " ".join([words, *limits])

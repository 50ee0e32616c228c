"""What went wrong, as OpenAI's API says it: {"error": {"message", "type", "param", "code"}} with a status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from engine.data import errors

RETRY_AFTER_S = "1"
INVALID = "invalid_request_error"
_STATUS: tuple[tuple[type[errors.NoodleError], int, str, str], ...] = (  # the first that fits: status, type, code
    (errors.InvalidInput, 400, INVALID, "invalid_value"),
    (errors.NotSupported, 400, INVALID, "unsupported"),
    (errors.NotFound, 404, INVALID, "not_found"),
    (errors.Exhausted, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.Unauthenticated, 401, "authentication_error", "invalid_api_key"),
    (errors.Unauthorized, 403, "permission_error", "insufficient_role"),
    (errors.Refused, 400, INVALID, "refused"),
    (errors.Unavailable, 503, "server_error", "unavailable"),
    (errors.Stale, 503, "server_error", "unavailable"),
    (errors.Cancelled, 503, "server_error", "cancelled"),
)


@dataclass(eq=False)  # what is raised is written to: it gets its traceback
class Problem(Exception):
    """An answer that is an error."""

    status: int
    message: str
    kind: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), self.status, dict(self.headers))


def problem_of(error: errors.NoodleError) -> Problem:
    """The problem that an error of the engine is. A bug says its incident id and nothing else."""
    text = str(error)
    for cls, status, kind, code in _STATUS:
        if isinstance(error, cls):
            headers = {"retry-after": RETRY_AFTER_S} if status in (429, 503) else {"www-authenticate": "Bearer"} if status == 401 else {}
            return Problem(status, text, kind, code=code, headers=headers)
    return Problem(500, text, "server_error", code="internal_error")

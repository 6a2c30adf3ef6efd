"""What goes wrong with a request, in the form that clients of OpenAI's protocol know.

Owns the form. Knows nothing of what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pamdp.errors import AnswerError, ContextLengthError, EndpointError, PamdpError, StoreError
from pamdp.serve.store import Conflict

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """A request that is not answered as it wants.

    Args:
      param: the field that is at fault, if one is.
      code: a word for programs.
      retry: seconds after which it may be asked again.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry: float | None = None
    ) -> None:
        headers = None if retry is None else {"Retry-After": str(max(1, round(retry + 0.5)))}
        super().__init__(status, message, headers)
        self.code, self.param = code, param


def body(status: int, message: str, code: str | None = None, param: str | None = None) -> Mapping[str, object]:
    """The error as JSON."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def of_pamdp(error: PamdpError) -> tuple[int, str | None]:
    """Status and code of a failure of pamdp's own: what a client can mend is its fault."""
    if isinstance(error, ContextLengthError):
        return 400, "context_length_exceeded"
    if isinstance(error, Conflict):
        return 409, "conflict"
    return (503, "unavailable") if isinstance(error, StoreError | AnswerError | EndpointError) else (400, None)


def install(app: FastAPI) -> None:
    """Have every failure of APP said in this form."""

    @app.exception_handler(HTTPException)
    async def known(_: Request, error: HTTPException) -> JSONResponse:
        code, param = (error.code, error.param) if isinstance(error, ApiError) else (None, None)
        return JSONResponse(body(error.status_code, str(error.detail), code, param), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = [part for part in first["loc"] if part != "body"]
        # The place in a text that is no JSON is a number, and no field.
        broken = first["type"] == "json_invalid"
        param = None if broken else "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".")
        said = str(first["msg"]).removeprefix("Value error, ")
        message = "the request is not JSON" if broken else f"{param}: {said}" if param else said
        return JSONResponse(body(400, message, None, param or None), 400)

    @app.exception_handler(PamdpError)
    async def ours(_: Request, error: PamdpError) -> JSONResponse:
        status, code = of_pamdp(error)
        return JSONResponse(body(status, str(error), code), status, {"Retry-After": "1"} if status == 503 else None)

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(body(500, "the server failed; its log says how"), 500)

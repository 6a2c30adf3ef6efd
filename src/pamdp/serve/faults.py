"""Failures of a request in OpenAI's error form.

Owns status and wording. Knows nothing of what the routes do.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from pamdp.errors import AnswerError, DataError, EndpointError, StoreError
from pamdp.serve.store import Conflict


class NotFoundError(DataError):
    """What a path names is not there, or is another key's."""


class FaultRoute(APIRoute):
    """A route whose failures a client of OpenAI's API can read; failures of the store are its status 503."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with words for what it raises."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"][1:])
                said = str(first["msg"]).removeprefix("Value error, ")
                return fault(400, f"{field}: {said}" if field else said, field or None)
            except NotFoundError as error:
                return fault(404, str(error))
            except Conflict as error:
                return fault(409, str(error))
            except DataError as error:
                return fault(400, str(error))
            except (StoreError, AnswerError, EndpointError) as error:
                return fault(503, str(error))

        return handled


def fault(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error as OpenAI's clients know it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = {404: "not_found", 409: "conflict", 503: "unavailable"}.get(status)
    body = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": body}, status, headers={"Retry-After": "1"} if status == 503 else None)

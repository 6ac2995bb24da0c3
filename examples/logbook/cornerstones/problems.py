"""Errors as problem details (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from asgihive import HTTPException


def answer(context: Any, error: Exception) -> JSONResponse | None:
    """Answer what handlers, dependencies and hooks raise on purpose."""
    if not isinstance(error, HTTPException):
        return None  # unexpected: logged, and a 500
    problem = {"title": HTTPStatus(error.status).phrase, "status": error.status}
    problem |= {"detail": error.message, "instance": context.request.url.path, **error.details}
    media_type = "application/problem+json"
    return JSONResponse(problem, error.status, error.headers, media_type)

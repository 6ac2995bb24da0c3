"""The handler that a hive and its peers serve: one function, so that only the way to it differs."""

from starlette.requests import Request
from starlette.responses import JSONResponse

PATH = "/greetings/{number}"


async def greet(request: Request) -> JSONResponse:
    """Answer with the number in the path."""
    return JSONResponse({"greeting": request.path_params["number"]})

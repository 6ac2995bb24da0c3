"""The cornerstone `auth`: who sends the service's API key may use the guarded routes."""

import hmac
from typing import Annotated

from starlette.requests import Request

from asgihive import CornerstoneHooks, Depends, Header, HTTPException

from ...settings import api_key


class CornerstoneHooksImpl(CornerstoneHooks):
    """Without a key the service does not start."""

    def pre_endpoint_setup(self) -> None:
        self.app_state["api_key"] = api_key().encode()


async def validate_request(
    request: Request, token: Annotated[str | None, Header("token")] = None
) -> None:
    """A guard: `dependencies=[guard]`.

    Raises:
        HTTPException: 400 without a key, 401 with a wrong one.
    """
    if token is None:
        raise HTTPException(400, "An API key is needed: send it as the header 'token'")
    expected: bytes = request.app.state.cornerstones["cornerstones.auth"]["api_key"]
    # In constant time: how long it takes says nothing about how much of a guess is right.
    if not hmac.compare_digest(token.encode(), expected):
        # RFC 9110 §15.5.2: a 401 has to say which scheme is wanted.
        headers = {"WWW-Authenticate": 'APIKey header="token"'}
        raise HTTPException(401, "The header 'token' is not the API key of this service", headers)


guard = Depends(validate_request)

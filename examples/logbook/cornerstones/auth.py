"""Who asks: bearer tokens (RFC 6750)."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from asgihive import Depends, FromHive, Header, HTTPException

from ..settings import read_tokens

SECURITY = {"bearer": {"type": "http", "scheme": "bearer"}}
"""For the documentation; the guard is `find_user`."""


@dataclass(frozen=True)
class User:
    """Who has a token."""

    name: str


class Tokens(dict[str, User]):
    """The users by token."""


provides = (Tokens,)


@asynccontextmanager
async def lifespan(context: Any) -> AsyncIterator[None]:
    """Read the tokens; without any, make one for this run."""
    tokens = Tokens({token: User(name) for token, name in read_tokens().items()})
    if not tokens:
        token = secrets.token_urlsafe(16)
        tokens[token] = User("demo")
        logging.getLogger("uvicorn.error").warning("LOGBOOK_TOKENS is not set; use %s", token)
    context.provide(Tokens, tokens)
    yield


def find_user(tokens: FromHive[Tokens], authorization: Annotated[str, Header()] = "") -> User:
    """Return who sends the request.

    Raises:
        HTTPException: 401, there is no such token.
    """
    scheme, _, token = authorization.partition(" ")
    for known, user in tokens.items():
        if scheme.lower() == "bearer" and secrets.compare_digest(token.encode(), known.encode()):
            return user
    headers = {"www-authenticate": 'Bearer realm="logbook"'}
    raise HTTPException(401, "Send a known token: Authorization: Bearer …", headers)


CurrentUser = Annotated[User, Depends(find_user)]

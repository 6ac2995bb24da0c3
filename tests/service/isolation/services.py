"""What tests ask of a service in isolation, and of its inside."""

from typing import Any
from urllib.parse import urlencode

import anyio
import numpy as np
import pytest

from asgihive.service import H5App
from asgihive.service.isolation.supervisor import Supervisor, _close_all
from tests.asgi.exchange import Exchange, http, run
from tests.service import servers
from tests.service.isolation import doubles


def limited(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("app", [settings], indirect=True, ids=[""])


def supervisor(app: H5App) -> Supervisor:
    assert app.life is not None
    found: Supervisor = app.life.cornerstones["hdf5.store"]["supervisor"]
    return found


def pids(app: H5App) -> set[int]:
    """Of its workers."""
    return {each.pid for each in supervisor(app)._all}


def close(app: H5App) -> None:
    """End its workers."""
    _close_all(supervisor(app)._all)


async def ask(app: H5App, route: str, file: str = "good.h5", /, **query: str) -> Exchange:
    exchange = http(route, query_string=urlencode({"file": file, **query}).encode())
    with anyio.fail_after(servers.PATIENCE):
        return await run(app, exchange)


def check_values(answer: Exchange, values: Any = doubles.VALUES) -> None:
    assert answer.status == 200, answer.body[:300]
    assert np.frombuffer(answer.body, "<i4").tolist() == values.tolist()


async def check_good(app: H5App) -> None:
    """Whoever asks for another file gets it."""
    check_values(await ask(app, "/data", path="values", format="bin"))


def refused(answer: Exchange, *words: str) -> None:
    assert answer.status == 500, answer.body[:300]
    for each in (*words, "crashed the reader"):
        assert each in answer.message

"""What tests ask of a service in isolation."""

from typing import Any
from urllib.parse import urlencode

import anyio
import numpy as np
import pytest

from asgihive.isolation.readers import Readers
from asgihive.service import H5App
from tests.asgi.exchange import Exchange, http, run
from tests.gates import until
from tests.isolation import doubles
from tests.service import servers


def limited(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("app", [settings], indirect=True, ids=[""])


def readers(app: H5App) -> Readers:
    assert app.life is not None
    found: Readers = app.life.cornerstones["hdf5.store"]["readers"]
    return found


def pids(app: H5App) -> set[int]:
    """Of its reader processes."""
    return {each.pid for each in readers(app).all}


def close(app: H5App) -> None:
    """End its reader processes."""
    readers(app).close()


async def wait_for_spare(app: H5App) -> None:
    """Wait until a process that has no request serves, beside the one that serves now."""
    with anyio.fail_after(4 * servers.PATIENCE):
        await until(lambda: any(each.ready.is_set() for each in list(readers(app).spare)))


async def ask(app: H5App, route: str, file: str = "good.h5", /, **query: str) -> Exchange:
    exchange = http(route, query_string=urlencode({"file": file, **query}).encode())
    # Three processes may have to start for it, on a busy machine.
    with anyio.fail_after(4 * servers.PATIENCE):
        return await run(app, exchange)


def check_values(answer: Exchange, values: Any = doubles.VALUES) -> None:
    assert answer.status == 200, answer.body[:300]
    assert np.frombuffer(answer.body, "<i4").tolist() == values.tolist()


async def check_good(app: H5App) -> None:
    """Check that a client that asks for another file gets it."""
    check_values(await ask(app, "/data", path="values", format="bin"))


def refused(answer: Exchange, *words: str) -> None:
    assert answer.status == 500, answer.body[:300]
    for each in (*words, "crashed the reader"):
        assert each in answer.message

"""The service of `examples/house_price_service`, and what its tests send to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from asgihive.hive import Hive

API_KEY = "a-key-of-the-tests"
TOKEN = {"token": API_KEY}
HOUSE = {
    "median_income_in_block": 8.3252,
    "median_house_age_in_block": 41,
    "average_rooms": 6,
    "average_bedrooms": 1,
    "population_per_block": 322,
    "average_house_occupancy": 2.55,
    "block_latitude": 37.88,
    "block_longitude": -122.23,
}


@asynccontextmanager
async def started(hive: Hive) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the hive in this process, while it runs."""
    transport = httpx.ASGITransport(hive, raise_app_exceptions=False)
    async with (
        hive.running(),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client

"""The example without its database: fastapi-hive's own tests, and what is new."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from openapi_spec_validator import validate

from asgihive.hive import Hive, HookFailed
from examples.house_price_service.endpoints_package1.house_price.model import FEATURES
from tests.examples.house_price import API_KEY, HOUSE, TOKEN, started
from tests.service import servers

pytestmark = pytest.mark.anyio

PREDICT = "/api/house_price/predict"


async def test_heartbeat(service_without_db: Hive) -> None:
    async with started(service_without_db) as client:
        answer = await client.get("/api/heart_beat/heartbeat")
        assert (answer.status_code, answer.json()) == (200, {"is_alive": True})


async def test_default_route(service_without_db: Hive) -> None:
    async with started(service_without_db) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert (await client.get("/docs")).status_code == 200
        assert "/docs" in answer.text


@pytest.mark.parametrize("body", [None, {}, HOUSE])
async def test_prediction_without_a_key(
    service_without_db: Hive, body: dict[str, float] | None
) -> None:
    async with started(service_without_db) as client:
        answer = await client.post(PREDICT, json=body)
        assert answer.status_code == 400
        assert "header 'token'" in answer.json()["message"]


@pytest.mark.parametrize("token", ["WRONG_TOKEN", "", API_KEY[:-1], API_KEY + "x", "schlüssel"])
async def test_prediction_with_a_wrong_key(service_without_db: Hive, token: str) -> None:
    async with started(service_without_db) as client:
        headers = {b"token": token.encode("latin-1")}
        answer = await client.post(PREDICT, json={"image": "test"}, headers=headers)
        assert answer.status_code == 401
        assert "not the API key" in answer.json()["message"]
        assert 'header="token"' in answer.headers["www-authenticate"]


async def test_prediction(service_without_db: Hive, data_folder: Path) -> None:
    async with started(service_without_db) as client:
        answer = await client.post(PREDICT, json=HOUSE, headers=TOKEN)
        assert answer.status_code == 200
        assert answer.json().keys() == {"median_house_value", "currency"}
        assert answer.json()["currency"] == "USD"
        with h5py.File(data_folder / "models/house_price.h5") as file:
            value = file["intercept"][()] + np.dot(file["coefficients"], list(HOUSE.values()))
        assert answer.json()["median_house_value"] == pytest.approx(100_000 * value, rel=1e-12)
        assert 400_000 < answer.json()["median_house_value"] < 450_000


async def test_prediction_without_payload(service_without_db: Hive) -> None:
    async with started(service_without_db) as client:
        contents: tuple[dict[str, float] | None, ...] = ({}, None)
        for content in contents:
            answer = await client.post(PREDICT, json=content, headers=TOKEN)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["where"] == ["body"]


@pytest.mark.parametrize("name", FEATURES)
async def test_prediction_with_a_wrong_number(service_without_db: Hive, name: str) -> None:
    async with started(service_without_db) as client:
        wrong = {**HOUSE, name: "many"}
        answer = await client.post(PREDICT, json=wrong, headers=TOKEN)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["where"] == ["body", name]
        missing = {key: value for key, value in HOUSE.items() if key != name}
        answer = await client.post(PREDICT, json=missing, headers=TOKEN)
        assert answer.status_code == 422
        assert name in answer.json()["message"]


async def test_the_model_is_served(service_without_db: Hive) -> None:
    """The two halves in one: what h5web reads is what predictions are made with."""
    async with started(service_without_db) as client:
        asked = {"file": "house_price.h5", "path": "/coefficients"}
        meta = (await client.get("/api/model_files/meta", params=asked)).json()
        assert (meta["kind"], meta["shape"]) == ("dataset", [len(FEATURES)])
        attributes = (await client.get("/api/model_files/attr", params=asked)).json()
        assert tuple(attributes["features"]) == FEATURES == tuple(HOUSE)
        coefficients = (await client.get("/api/model_files/data", params=asked)).json()
        asked["path"] = "/intercept"
        intercept = (await client.get("/api/model_files/data", params=asked)).json()
        answer = await client.post(PREDICT, json=HOUSE, headers=TOKEN)
        value = intercept + np.dot(coefficients, list(HOUSE.values()))
        assert answer.json()["median_house_value"] == pytest.approx(100_000 * value, rel=1e-12)


@pytest.mark.slow_on_trio
async def test_openapi(service_without_db: Hive) -> None:
    async with started(service_without_db) as client:
        document = (await client.get("/openapi.json")).json()
    validate(document)
    assert document["paths"].keys() >= {PREDICT, "/api/notes", "/api/notes/{note_id}"}
    assert document["paths"][PREDICT]["post"]["tags"] == ["endpoints_package1"]


async def test_start_order(service_without_db: Hive) -> None:
    assert [each.key for each in service_without_db.graph()] == [
        "cornerstones.auth",
        "cornerstones.db",
        "endpoints_package1.heart_beat",
        "endpoints_package1.house_price",
        "endpoints_package2.model_files",
        "endpoints_package1.notes",
    ]


async def test_it_does_not_start_without_a_key(
    service_without_db: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("API_KEY")
    with pytest.raises(HookFailed, match=r"cornerstones\.auth .*API_KEY is not set"):
        async with started(service_without_db):
            pytest.fail("it started")


async def test_it_does_not_start_with_a_model_of_other_features(
    service_without_db: Hive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_FOLDER", str(tmp_path))
    (tmp_path / "models").mkdir()
    with h5py.File(tmp_path / "models/house_price.h5", "w") as file:
        file["coefficients"] = [1.0, 2.0]
        file["coefficients"].attrs["features"] = ("rooms", "garages")
    with pytest.raises(HookFailed, match=r"house_price .*rooms, garages; needed .*average_rooms"):
        async with started(service_without_db):
            pytest.fail("it started")


@pytest.mark.parametrize("url", ["notes.db", "nodatabase://host/notes"])
async def test_it_does_not_start_without_a_database(
    service: Hive, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(HookFailed, match=r"cornerstones\.db "):
        async with started(service):
            pytest.fail("it started")


@pytest.mark.parametrize("server", servers.UVICORN)
def test_under_uvicorn(service: Hive, server: str) -> None:
    """Everything over a real socket, the lifespan by the server."""
    with (
        servers.serving(service, server) as url,
        servers.client(url) as client,
        servers.client(url) as other,
    ):
        assert other.get("/").status_code == 200  # is connected from here on
        assert client.get("/api/heart_beat/heartbeat").json() == {"is_alive": True}
        answer = client.post(PREDICT, json=HOUSE, headers=TOKEN)
        assert answer.json()["currency"] == "USD"
        asked = {"file": "house_price.h5", "path": "/coefficients", "format": "bin"}
        raw = client.get("/api/model_files/data", params=asked).content
        assert np.frombuffer(raw, "<f8").shape == (len(FEATURES),)
        for number in range(1, 11):
            note = client.post("/api/notes", json={"text": f"{number}", "completed": False}).json()
            # What an answer says is stored is there at once, for everyone.
            seen = other.get(f"/api/notes/{note['id']}")
            assert (seen.status_code, seen.json()) == (200, note)
        assert client.delete(f"/api/notes/{note['id']}").status_code == 204
        assert other.get(f"/api/notes/{note['id']}").status_code == 404

"""A service of the shape of fastapi-hive's example runs by changed imports and configuration alone.

It has what that one has: `APIRouter`s, a session by a middleware that a hook adds, a guard by
`Depends`, a router that a hook includes once more, sync and async hooks of one package, absolute
imports from the package that all of it is in, and a route of the FastAPI application's own. The
answers are those of fastapi-hive 1.0.24, but for the last one: an error that no handler of FastAPI
knows is answered by the hive, in JSON.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hive.services import client, write

pytestmark = pytest.mark.anyio

HOOKS = """
class {kind}HooksImpl({kind}Hooks):
    def __init__(self):
        super({kind}HooksImpl, self).__init__()

{sync}


class {kind}AsyncHooksImpl({kind}AsyncHooks):
    async def {step}(self):
        self.app_state["async"] = True
"""

FILES = {
    "__init__.py": "",
    "main.py": """
        from asgihive import Hive, HiveConfig
        from fastapi import FastAPI

        from ported.cornerstone.config import API_PREFIX

        CALLS = []


        def get_app() -> Hive:
            fast_app = FastAPI(title="House prices", version="0.0.1")

            def before():
                CALLS.append("sync")

            async def async_before():
                CALLS.append("async")

            config = HiveConfig.from_object(
                {
                    "CORNERSTONE_PACKAGE_PATH": "./cornerstone/",
                    "API_PREFIX": API_PREFIX,
                    "ENDPOINT_PACKAGE_PATHS": ["./package1", "./package2"],
                    "ROUTER_MOUNT_AUTOMATED": True,
                    "HIDE_ENDPOINT_CONTAINER_IN_API": True,
                    "HIDE_ENDPOINT_IN_API": False,
                    "HIDE_ENDPOINT_IN_TAG": True,
                    "PRE_ENDPOINT_SETUP": before,
                    "ASYNC_PRE_ENDPOINT_SETUP": async_before,
                }
            )
            hive = Hive(config, app=fast_app, entry_points=False)

            @fast_app.get("/")
            def get_root():
                return "Go to /docs"

            return hive


        app = get_app()
        """,
    "cornerstone/__init__.py": "",
    "cornerstone/config.py": 'API_PREFIX = "/api"\nAPI_KEY = "secret"\n',
    "cornerstone/auth/__init__.py": """
        from asgihive import CornerstoneAsyncHooks, CornerstoneHooks

        from ported.cornerstone.auth.implement import validate_request

        """
    + HOOKS.format(
        kind="Cornerstone",
        step="pre_endpoint_setup",
        sync="    def pre_endpoint_setup(self):\n        self.app_state['app'] = str(self.app)",
    ).replace("\n", "\n        "),
    "cornerstone/auth/implement.py": """
        import secrets
        from typing import Optional

        from fastapi import HTTPException, Security
        from fastapi.security.api_key import APIKeyHeader

        from ported.cornerstone import config

        api_key = APIKeyHeader(name="token", auto_error=False)


        def validate_request(header: Optional[str] = Security(api_key)) -> bool:
            if header is None:
                raise HTTPException(status_code=400, detail="No API key.")
            if not secrets.compare_digest(header, config.API_KEY):
                raise HTTPException(status_code=401, detail="Wrong API key.", headers={})
            return True
        """,
    "cornerstone/db/__init__.py": """
        from asgihive import CornerstoneHooks

        from ported.cornerstone.db.implement import Base, SessionMiddleware, db, engine


        class CornerstoneHooksImpl(CornerstoneHooks):
            def pre_endpoint_setup(self):
                assert self.cornerstone.container_name == "cornerstone"
                assert self.cornerstone.package_path == "ported.cornerstone.db"
                self.app.add_middleware(SessionMiddleware, engine=engine)
                self.app_state["db"] = db

            def post_endpoint_setup(self):
                Base.metadata.create_all(engine)

            def pre_endpoint_call(self):
                self.request_state["db"] = db

            def post_endpoint_teardown(self):
                engine.dispose()
        """,
    "cornerstone/db/implement.py": """
        from contextvars import ContextVar

        from sqlalchemy import create_engine
        from sqlalchemy.orm import declarative_base, sessionmaker
        from sqlalchemy.pool import StaticPool
        from starlette.concurrency import run_in_threadpool

        Base = declarative_base()
        engine = create_engine(
            "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
        )
        _session = ContextVar("session")


        class SessionMiddleware:
            def __init__(self, app, engine):
                self.app = app
                self.make = sessionmaker(bind=engine)

            async def __call__(self, scope, receive, send):
                session = self.make()
                token = _session.set(session)
                await self.app(scope, receive, send)
                _session.reset(token)
                await run_in_threadpool(session.close)


        class _Database:
            @property
            def session(self):
                return _session.get()


        db = _Database()
        """,
    "package1/__init__.py": "",
    "package1/heart_beat/__init__.py": "",
    "package1/heart_beat/router/__init__.py": """
        from ported.package1.heart_beat.router.implement import router
        """,
    "package1/heart_beat/router/implement.py": """
        from fastapi import APIRouter
        from pydantic import BaseModel

        router = APIRouter()


        class Result(BaseModel):
            is_alive: bool


        @router.get("/heartbeat", response_model=Result, name="heartbeat")
        def get_heartbeat() -> Result:
            return Result(is_alive=True)
        """,
    "package1/heart_beat/service/__init__.py": "service = None",
    "package1/house_price/__init__.py": "",
    "package1/house_price/router/__init__.py": """
        from asgihive import EndpointHooks

        from ported.package1.house_price.router.implement import router


        class EndpointHooksImpl(EndpointHooks):
            def setup(self):
                self.app.include_router(router, tags=["house price"], prefix="/v1/house_price1")
        """,
    "package1/house_price/router/implement.py": """
        from fastapi import APIRouter, Depends
        from pydantic import BaseModel
        from starlette.requests import Request

        from ported.cornerstone import auth

        router = APIRouter()


        class Payload(BaseModel):
            rooms: int
            latitude: float


        class Result(BaseModel):
            value: int
            currency: str = "USD"


        @router.post("/predict", response_model=Result, name="predict")
        def post_predict(
            request: Request,
            authenticated: bool = Depends(auth.validate_request),
            block_data: Payload = None,
        ) -> Result:
            model = request.app.state.endpoints["package1.house_price"]["model"]
            return Result(value=model.predict(block_data))
        """,
    "package1/house_price/service/__init__.py": """
        from asgihive import EndpointAsyncHooks, EndpointHooks


        class Model:
            def predict(self, payload):
                if payload is None:
                    raise ValueError("not a valid payload")
                return payload.rooms * 1000

        """
    + HOOKS.format(
        kind="Endpoint",
        step="setup",
        sync="    def setup(self):\n        self.app_state['model'] = Model()",
    ).replace("\n", "\n        "),
    "package2/__init__.py": "",
    "package2/notes/__init__.py": "",
    "package2/notes/db/__init__.py": """
        from sqlalchemy import Boolean, Column, Integer, String

        from ported.cornerstone.db import Base


        class Note(Base):
            __tablename__ = "note"

            id = Column(Integer, primary_key=True)
            text = Column(String)
            completed = Column(Boolean)
        """,
    "package2/notes/router/__init__.py": """
        from typing import List

        from fastapi import APIRouter
        from pydantic import BaseModel
        from starlette.requests import Request

        from ported.package2.notes import db as dbmodel

        router = APIRouter()


        class NoteIn(BaseModel):
            text: str
            completed: bool


        class Note(NoteIn):
            id: int


        @router.get("", response_model=List[Note], name="query notes.")
        def get_notes(req: Request, skip: int = 0, limit: int = 100):
            db = req.state.cornerstones["cornerstone.db"]["db"].session
            return db.query(dbmodel.Note).offset(skip).limit(limit).all()


        @router.post("", response_model=Note, name="create note")
        def create_note(note: NoteIn, req: Request):
            db = req.app.state.cornerstones["cornerstone.db"]["db"].session
            db_note = dbmodel.Note(text=note.text, completed=note.completed)
            db.add(db_note)
            db.commit()
            db.refresh(db_note)
            return db_note
        """,
    "package2/notes/service/__init__.py": "service = None",
}

PAYLOAD = {"rooms": 6, "latitude": 37.88}
NOTE = {"text": "look at the roof", "completed": False}
STORED = {"text": "look at the roof", "completed": False, "id": 1}
KEY = {"token": "secret"}
OTHER_KEY = {"token": "x"}
PREDICTED = {"value": 6000, "currency": "USD"}

# Method, path, headers, JSON; status, and the answer where FastAPI's own words do not matter.
CALLS: list[tuple[str, str, dict[str, str], Any, int, Any]] = [
    ("GET", "/", {}, None, 200, "Go to /docs"),
    ("GET", "/api/heart_beat/heartbeat", {}, None, 200, {"is_alive": True}),
    ("POST", "/api/heart_beat/heartbeat", {}, None, 405, {"detail": "Method Not Allowed"}),
    ("POST", "/api/house_price/predict", {}, PAYLOAD, 400, {"detail": "No API key."}),
    (
        "POST",
        "/api/house_price/predict",
        {"token": "x"},
        PAYLOAD,
        401,
        {"detail": "Wrong API key."},
    ),
    ("POST", "/api/house_price/predict", KEY, PAYLOAD, 200, PREDICTED),
    ("POST", "/api/house_price/predict", KEY, {"rooms": 6}, 422, ...),
    ("POST", "/api/house_price/predict", KEY, {**PAYLOAD, "rooms": "six"}, 422, ...),
    ("POST", "/v1/house_price1/predict", {}, PAYLOAD, 400, {"detail": "No API key."}),
    ("POST", "/v1/house_price1/predict", KEY, PAYLOAD, 200, PREDICTED),
    ("GET", "/api/notes", {}, None, 200, []),
    ("POST", "/api/notes", {}, NOTE, 200, STORED),
    ("POST", "/api/notes", {}, {"text": "without the rest"}, 422, ...),
    ("GET", "/api/notes", {}, None, 200, [STORED]),
    ("GET", "/api/notes?skip=1", {}, None, 200, []),
    ("GET", "/api/notes?limit=many", {}, None, 422, ...),
    ("GET", "/api/nothing", {}, None, 404, {"detail": "Not Found"}),
    ("POST", "/api/house_price/predict", KEY, None, 500, {"message": "Internal server error"}),
]


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    write(tmp_path / "ported", FILES)
    monkeypatch.syspath_prepend(str(tmp_path))
    import ported.main  # type: ignore[import-not-found]  # noqa: PLC0415  # it was just written

    yield ported.main
    for name in [each for each in sys.modules if each.partition(".")[0] == "ported"]:
        del sys.modules[name]


async def test_its_calls_are_answered_as_fastapi_hive_answers_them(main: Any) -> None:
    async with main.app.running(), client(main.app) as asks:
        assert main.CALLS == ["sync", "async"]
        for method, path, headers, body, status, expected in CALLS:
            answer = await asks.request(method, path, headers=headers, json=body)
            assert answer.status_code == status, (path, answer.text)
            if expected is not ...:
                assert answer.json() == expected
        document = (await asks.get("/openapi.json")).json()
        assert document["info"] == {"title": "House prices", "version": "0.0.1"}
        assert [*document["paths"]] == [
            "/",
            "/v1/house_price1/predict",
            "/api/heart_beat/heartbeat",
            "/api/house_price/predict",
            "/api/notes",
        ]
        tags = {
            path: next(iter(item.values())).get("tags") for path, item in document["paths"].items()
        }
        assert tags["/api/notes"] == ["package2"]
        assert tags["/v1/house_price1/predict"] == ["house price"]
        assert (await asks.get("/docs")).status_code == 200
        states = main.app.fastapi.state.cornerstones
        assert states["cornerstone.auth"]["async"] is True

"""`HiveMiddleware`: the hooks and states of a hive, for the routes of another application."""

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.hive.assembly import Assembly
from asgihive.hive.errors import HiveError
from asgihive.hive.hive import Hive


class HiveMiddleware:
    """Runs the request hooks of `hive` around `app`, and gives its routes the states.

    The routes find `request.app.state.cornerstones` and `.endpoints` at their own
    application, and `request.state.cornerstones`. An exception that they raise goes on to
    whoever answers exceptions there, after the hooks after the request; `status` is None
    then, since nothing was sent yet. What hooks raise is answered here.

    It starts nothing: give the application `lifespan=hive.lifespan`. A hive that does not
    run answers 503.

    Args:
        app: the next application; Starlette and FastAPI give it themselves:
            `Middleware(HiveMiddleware, hive=hive)`.
        hive: whose hooks and states.

    Raises:
        HiveError: at a request: another hive gives its states to the application already.
    """

    def __init__(self, app: ASGIApp, hive: Hive) -> None:
        self.app = app
        self.hive = hive
        self._life: Assembly | None = None
        self._answer: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        life = self.hive.life
        if life is None:
            await self.hive(scope, receive, send)
            return
        if life is not self._life:
            self._life, self._answer = life, life.surrounding(self.app)
            for app in (scope.get("app"), self.app):
                self._give_states(app, life)
        await self._answer(scope, receive, send)

    def _give_states(self, app: object, life: Assembly) -> None:
        state = getattr(app, "state", None)
        if state is None or app is self.hive:
            return
        giver = getattr(state, "asgihive", self.hive)
        if giver is not self.hive:
            message = "The application has the states of another hive already: give it one only"
            raise HiveError(message)
        state.asgihive = self.hive
        state.cornerstones = life.cornerstones
        state.endpoints = life.endpoints

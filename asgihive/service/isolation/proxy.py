"""The endpoint of a service in isolation: the same routes, answered by workers."""

from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import Router, run_while_connected
from asgihive.hive import Component, ModuleHooks
from asgihive.service.batch import Batch
from asgihive.service.core import Core
from asgihive.service.gate import STATUSES
from asgihive.service.isolation.relay import ClientGone, Relay
from asgihive.service.isolation.supervisor import Supervisor
from asgihive.service.read_timeout import TimedRoute
from asgihive.service.store import Store

# An answer that takes no longer is not worth watching whether its client goes away meanwhile.
_UNWATCHED_SECONDS = 0.05


class Proxy:
    """An ASGI application: answers as the workers' does, whatever happens to them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        crew = self._supervisor.crew()
        relay = Relay(crew, scope, send)
        await self._supervisor.check(relay.file)
        crew.enter()
        try:
            if not await relay.begin(_UNWATCHED_SECONDS):
                await run_while_connected(receive, relay.rest)
        except ClientGone:
            return
        finally:
            relay.end()
            crew.leave()


def isolated(store: Store, router: Router) -> Core:
    """A cornerstone of worker processes, the routes that they answer, and what they come to.

    Args:
        store: of this process, where nothing is opened through it.
        router: the service's routes.

    Raises:
        ValueError: there can be no worker processes here.
    """
    supervisor = Supervisor(store.sandbox, store.settings)
    proxy = Proxy(supervisor)
    cornerstone = Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        # Blocks pass through the memory of this process, too, which the store gives back.
        modules=(
            ModuleHooks(lifespan=lambda _: store.running()),
            ModuleHooks(lifespan=lambda _: supervisor.running()),
        ),
        state={"store": store, "supervisor": supervisor},
        statuses=STATUSES,
        needs_lifespan=False,
    )
    return Core(cornerstone, _proxied(store, router, proxy), supervisor.figures, health=proxy)


def _proxied(store: Store, router: Router, proxy: Proxy) -> Router:
    """The same routes, answered by workers, and in time, whatever becomes of those.

    A batch is taken apart here, so that each of its requests has to have the permission that an
    application brings, and only the one that crashes a worker fails.
    """
    timed = TimedRoute(proxy, store.settings.read_timeout_seconds)
    proxied = Router(optional_trailing_slash=router.optional_trailing_slash)
    for route in router.registered:
        is_batch = isinstance(route.target, Batch)
        app: ASGIApp = Batch(store, proxied) if is_batch else timed
        proxied.add(route.path, app, methods=route.methods, name=route.name)
    return proxied

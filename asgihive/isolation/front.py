"""The endpoint of a service in isolation: the same routes, answered by reader processes."""

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from asgihive.asgi import Router, run_while_connected
from asgihive.hive import Component, ModuleHooks
from asgihive.isolation.readers import Readers
from asgihive.isolation.relay import ClientGone, Relay
from asgihive.service.batch import Batch
from asgihive.service.core import Core
from asgihive.service.gate import STATUSES
from asgihive.service.store import Store

# Where a response takes no longer, it is not worth watching whether its client goes away.
_UNWATCHED_SECONDS = 0.05


class Front:
    """An ASGI application: answers as a reader process does, whatever happens to that one."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        relay = Relay(self._readers, scope, send)
        try:
            await relay.begin(_UNWATCHED_SECONDS)
            if not relay.is_complete:
                await run_while_connected(receive, relay.run)
        except ClientGone:
            return
        finally:
            with anyio.CancelScope(shield=True):
                await relay.end()


def isolate(store: Store, router: Router) -> Core:
    """Return the parts of a service whose files are read by reader processes.

    A batch is taken apart in the front, so that each of its requests needs the permission that an
    application asks for, and only the request fails that ends its process.

    Args:
        store: of the front, where nothing is opened through it.
        router: the service's routes.

    Raises:
        ValueError: there can be no reader processes here.
    """
    readers = Readers(store.sandbox, store.settings)
    front = Front(readers)
    relayed = Router(optional_trailing_slash=router.optional_trailing_slash)
    for route in router.registered:
        is_batch = isinstance(route.target, Batch)
        app: ASGIApp = Batch(store, relayed) if is_batch else front
        relayed.add(route.path, app, methods=route.methods, name=route.name)
    cornerstone = Component(
        kind="cornerstone",
        container="hdf5",
        name="store",
        # Blocks pass through the memory of this process, too, which the store gives back.
        modules=(
            ModuleHooks(lifespan=lambda _: store.running()),
            ModuleHooks(lifespan=lambda _: readers.running()),
        ),
        state={"store": store, "readers": readers},
        statuses=STATUSES,
        needs_lifespan=False,
    )
    return Core(cornerstone, relayed, readers.figures, health=front)

"""Starts what a hive consists of, in order, and stops it in reverse."""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from asgihive.errors import ConfigurationError, HookFailed

_logger = logging.getLogger("asgihive.hive")

Hook = Callable[[], Awaitable[object]]
Manager = AbstractAsyncContextManager[object]
LifespanFactory = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

# The steps of cornerstones and external functions, and of endpoints.
PRE_SETUP, POST_SETUP = "pre_endpoint_setup", "post_endpoint_setup"
PRE_TEARDOWN, POST_TEARDOWN = "pre_endpoint_teardown", "post_endpoint_teardown"
SETUP, TEARDOWN = "setup", "teardown"


class Unit(Protocol):
    """What is started and stopped as one; `stop` says whether it ends a pending cancellation."""

    owner: str
    file: str
    is_started: bool

    async def start(self, step: str) -> None: ...

    async def stop(self, step: str, pending: BaseException | None) -> bool: ...


class HookUnit:
    """A hooks object, or external functions; it is started once its first step was run.

    Args:
        owner: the component's key, for messages.
        file: where it is written.
        hooks: what to call, by step; a step without one counts as run.
    """

    def __init__(self, owner: str, file: str, hooks: Mapping[str, Hook]) -> None:
        self.owner = owner
        self.file = file
        self.is_started = False
        self._hooks = hooks

    async def start(self, step: str) -> None:
        hook = self._hooks.get(step)
        if hook is not None:
            await hook()
        self.is_started = True

    async def stop(self, step: str, pending: BaseException | None) -> bool:
        hook = self._hooks.get(step)
        if hook is None:
            return False
        if pending is None:
            # Without a scope around: a hook may close one that another hook opened.
            await hook()
        else:
            with anyio.CancelScope(shield=True):
                await hook()
        return False


class ManagerUnit:
    """A context manager around the life of a component; arguments as `HookUnit`.

    It is left normally, also when another component failed. Only a cancellation is thrown
    into it, so that a task group or cancel scope that it holds open can end its own.

    Args:
        make: called when it is entered.
        keep: called with what entering it returned.
    """

    def __init__(
        self,
        owner: str,
        file: str,
        make: Callable[[], Any],
        keep: Callable[[object], None] | None = None,
    ) -> None:
        self.owner = owner
        self.file = file
        self.is_started = False
        self._make = make
        self._keep = keep
        self._manager: Manager | None = None

    async def start(self, step: str) -> None:  # noqa: ARG002  # it has but one
        manager = self._make()
        if not hasattr(manager, "__aenter__"):
            if inspect.iscoroutine(manager):
                manager.close()
            detail = f"returned {manager!r}: an async context manager is accepted"
            raise ConfigurationError("lifespan", detail)
        entered = await manager.__aenter__()
        self._manager = manager
        self.is_started = True
        if self._keep is not None:
            self._keep(entered)

    async def stop(self, step: str, pending: BaseException | None) -> bool:  # noqa: ARG002  # as above
        if self._manager is None:
            return False
        manager, self._manager = self._manager, None
        kind = None if pending is None else type(pending)
        trace = None if pending is None else pending.__traceback__
        return bool(await manager.__aexit__(kind, pending, trace))


@dataclass(frozen=True, slots=True)
class Group:
    """What runs at the same steps: of a cornerstone, or of one part of an endpoint."""

    hooks: tuple[HookUnit, ...] = ()
    managers: tuple[ManagerUnit, ...] = ()

    @property
    def inwards(self) -> tuple[Unit, ...]:
        """In the order of starting."""
        return (*self.hooks, *self.managers)

    @property
    def outwards(self) -> tuple[Unit, ...]:
        """In the order of stopping: at each step the sync hooks still run before the async."""
        return (*reversed(self.managers), *self.hooks)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is started: what the order of start-up and shutdown is made of.

    Args:
        external: the functions of the configuration, sync and async.
        cornerstones: in start order.
        endpoints: in start order; of each its parts.
        mount: mounts the routers, once the endpoints are set up.
    """

    external: tuple[HookUnit, ...]
    cornerstones: tuple[Group, ...]
    endpoints: tuple[tuple[Group, ...], ...]
    mount: Callable[[], None]

    def before_mounting(self) -> Iterator[tuple[Unit, str]]:
        """Units and their steps, in the order of start-up, until the routers are mounted."""
        yield from ((unit, PRE_SETUP) for unit in self.external)
        yield from ((unit, PRE_SETUP) for each in self.cornerstones for unit in each.inwards)
        for parts in self.endpoints:
            yield from ((unit, SETUP) for each in parts for unit in each.inwards)

    def after_mounting(self) -> Iterator[tuple[Unit, str]]:
        """The rest of start-up."""
        yield from ((unit, POST_SETUP) for unit in self.external)
        yield from ((unit, POST_SETUP) for each in self.cornerstones for unit in each.hooks)

    def shutdown(self) -> Iterator[tuple[Unit, str]]:
        """Units and their steps, in the order of shutdown."""
        cornerstones = self.cornerstones[::-1]
        yield from ((unit, PRE_TEARDOWN) for unit in self.external)
        yield from ((unit, PRE_TEARDOWN) for each in cornerstones for unit in each.hooks)
        for parts in reversed(self.endpoints):
            yield from ((unit, TEARDOWN) for each in reversed(parts) for unit in each.outwards)
        yield from ((unit, POST_TEARDOWN) for unit in self.external)
        yield from ((unit, POST_TEARDOWN) for each in cornerstones for unit in each.outwards)


@asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[None]:
    """Start everything in the calling task, and stop there what was started.

    Every teardown is attempted, whatever happens to the others, to the body, or at
    start-up; those of a hooks object or lifespan whose set-up did not run to the end are
    left out. A cancellation does not keep them from running.

    Raises:
        HookFailed: a step of start-up raised. What teardown raised then is in its notes.
        ExceptionGroup: of a `HookFailed` for each teardown that raised.
    """
    failure: Exception | None = None
    pending: BaseException | None = None
    try:
        await _start(plan.before_mounting())
        plan.mount()
        await _start(plan.after_mounting())
        yield
    except Exception as error:  # noqa: BLE001  # raised below, once everything is stopped
        failure = error
    except BaseException as error:  # noqa: BLE001  # as above: a cancellation
        pending = error
    errors, pending = await _stop(plan.shutdown(), pending)
    if pending is not None:
        raise pending
    if failure is not None:
        for each in errors:
            failure.add_note(f"Afterwards {each}")
        raise failure
    if errors:
        raise ExceptionGroup("Some teardowns failed", errors)


async def _start(steps: Iterator[tuple[Unit, str]]) -> None:
    for unit, step in steps:
        try:
            await unit.start(step)
        except Exception as error:
            raise HookFailed(unit.owner, unit.file, step, error) from error


async def _stop(
    steps: Iterator[tuple[Unit, str]], pending: BaseException | None
) -> tuple[Sequence[HookFailed], BaseException | None]:
    """What failed, and the cancellation that is to be passed on."""
    errors = []
    for unit, step in steps:
        if not unit.is_started:
            continue
        try:
            if await unit.stop(step, pending):
                pending = None
        except Exception as error:
            failed = HookFailed(unit.owner, unit.file, step, error)
            failed.__cause__ = error
            errors.append(failed)
            _logger.error("%s", failed, exc_info=error)  # noqa: TRY400  # with the hook's own
            if isinstance(unit, ManagerUnit):
                # As from an `async with`: what a task group raises stands for its cancellation.
                pending = None
        except BaseException as error:  # noqa: BLE001  # passed on when all are stopped
            pending = error
    return errors, pending


def compose_lifespans(
    *lifespans: LifespanFactory,
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """One lifespan out of several, for `Starlette(lifespan=…)`.

    They start in their order and stop in reverse, nested as `async with` nests them. The
    mappings that they yield become one; of a key that several have, the last one's value.
    """

    @asynccontextmanager
    async def composed(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            for lifespan in lifespans:
                yielded = await stack.enter_async_context(lifespan(app))
                state.update(yielded or {})
            yield state

    return composed

"""Starts the components of a hive in order, and stops them in reverse."""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from asgihive.errors import ConfigurationError, HookFailed

_logger = logging.getLogger("asgihive.hive")

LifespanFactory = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

# The steps of cornerstones and external functions, and of endpoints.
PRE_SETUP, POST_SETUP = "pre_endpoint_setup", "post_endpoint_setup"
PRE_TEARDOWN, POST_TEARDOWN = "pre_endpoint_teardown", "post_endpoint_teardown"
SETUP, TEARDOWN = "setup", "teardown"
LIFESPAN = "lifespan"  # of a component, or of an application that is mounted


class HookUnit:
    """A hooks object, or external functions; it is started once its first step was run.

    Args:
        hooks: what to call, by step; a step without one counts as run.
    """

    def __init__(
        self, owner: str, file: str, hooks: Mapping[str, Callable[[], Awaitable[object]]]
    ) -> None:
        self.owner = owner
        self.file = file
        self.is_started = False
        self._hooks = hooks

    async def start(self, step: str) -> None:
        if step in self._hooks:
            await self._hooks[step]()
        self.is_started = True

    async def stop(self, step: str, pending: BaseException | None) -> bool:
        hook = self._hooks.get(step)
        if hook is not None and pending is None:
            # Without a scope around: a hook may close one that another hook opened.
            await hook()
        elif hook is not None:
            with anyio.CancelScope(shield=True):
                await hook()
        return False


class ManagerUnit:
    """A context manager around the life of a component.

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
        self._manager: AbstractAsyncContextManager[object] | None = None

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
        if pending is None:
            return bool(await manager.__aexit__(None, None, None))
        return bool(await manager.__aexit__(type(pending), pending, pending.__traceback__))


LifeUnit = HookUnit | ManagerUnit
"""What is started and stopped as one; `stop` returns whether it ends the pending cancellation."""


@dataclass(frozen=True, slots=True)
class UnitGroup:
    """What runs at the same steps: of a cornerstone, or of one module of an endpoint."""

    hooks: tuple[HookUnit, ...] = ()
    managers: tuple[ManagerUnit, ...] = ()

    @property
    def start_order(self) -> tuple[LifeUnit, ...]:
        """Hooks before managers."""
        return (*self.hooks, *self.managers)


@dataclass(frozen=True, slots=True)
class LifePlan:
    """Everything that is started, from which the order of start-up and shutdown is made."""

    external: tuple[HookUnit, ...]
    """The functions of the configuration, sync and async."""
    cornerstones: tuple[UnitGroup, ...]
    """In start order."""
    endpoints: tuple[tuple[UnitGroup, ...], ...]
    """In start order; of each its modules."""
    mount: Callable[[], None]
    """Mounts the routers, once the endpoints are set up."""
    find_mounted: Callable[[], Sequence[LifeUnit]] = tuple
    """Finds the other applications that are mounted by then, which start after that."""

    def list_steps_before_mounting(self) -> Iterator[tuple[LifeUnit, str]]:
        """List units and their steps, in the order of start-up, until the routers are mounted."""
        yield from ((unit, PRE_SETUP) for unit in self.external)
        yield from ((unit, PRE_SETUP) for each in self.cornerstones for unit in each.start_order)
        for groups in self.endpoints:
            yield from ((unit, SETUP) for each in groups for unit in each.start_order)

    def list_steps_after_mounting(self) -> Iterator[tuple[LifeUnit, str]]:
        """List the rest of start-up."""
        yield from ((unit, LIFESPAN) for unit in self.find_mounted())
        yield from ((unit, POST_SETUP) for unit in self.external)
        yield from ((unit, POST_SETUP) for each in self.cornerstones for unit in each.hooks)
        yield from ((unit, LIFESPAN) for unit in self.find_mounted() if not unit.is_started)

    def list_shutdown_steps(self) -> Iterator[tuple[LifeUnit, str]]:
        """List units and their steps, in the order of shutdown."""
        hooks = [unit for each in self.cornerstones for unit in each.hooks]
        yield from ((unit, PRE_TEARDOWN) for unit in reversed(self.external))
        yield from ((unit, PRE_TEARDOWN) for unit in reversed(hooks))
        yield from ((unit, LIFESPAN) for unit in reversed(self.find_mounted()))
        modules = [
            unit for groups in self.endpoints for each in groups for unit in each.start_order
        ]
        yield from ((unit, TEARDOWN) for unit in reversed(modules))
        yield from ((unit, POST_TEARDOWN) for unit in reversed(self.external))
        units = [unit for each in self.cornerstones for unit in each.start_order]
        yield from ((unit, POST_TEARDOWN) for unit in reversed(units))


@asynccontextmanager
async def run_plan(plan: LifePlan) -> AsyncIterator[None]:
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
        await _start(plan.list_steps_before_mounting())
        plan.mount()
        await _start(plan.list_steps_after_mounting())
        yield
    except Exception as error:  # noqa: BLE001  # raised below, once everything is stopped
        failure = error
    except BaseException as error:  # noqa: BLE001  # as above: a cancellation
        pending = error
    errors, pending = await _stop(plan.list_shutdown_steps(), pending)
    if pending is not None:
        raise pending
    if failure is not None:
        for each in errors:
            failure.add_note(f"Afterwards {each}")
        raise failure
    if errors:
        raise ExceptionGroup("Some teardowns failed", errors)


async def _start(steps: Iterator[tuple[LifeUnit, str]]) -> None:
    for unit, step in steps:
        try:
            await unit.start(step)
        except (Exception, SystemExit) as error:
            # Of `sys.exit("…")` servers would take it for an application without a lifespan.
            raise _name_failure(unit, step, error) from error


def _name_failure(unit: LifeUnit, step: str, error: BaseException) -> HookFailed:
    """Name what failed as its module does: a lifespan starts and stops at steps of hooks."""
    name = LIFESPAN if isinstance(unit, ManagerUnit) else step
    return HookFailed(unit.owner, unit.file, name, error)


async def _stop(
    steps: Iterator[tuple[LifeUnit, str]], pending: BaseException | None
) -> tuple[Sequence[HookFailed], BaseException | None]:
    """Return what failed, and the cancellation that is to be passed on."""
    errors = []
    for unit, step in steps:
        if not unit.is_started:
            continue
        try:
            if await unit.stop(step, pending):
                pending = None
        except (Exception, SystemExit) as error:
            failed = _name_failure(unit, step, error)
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
    """Make one lifespan out of several, for `Starlette(lifespan=…)`.

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

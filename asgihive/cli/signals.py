"""How signals end a command."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl+C, so that temporary files are removed."""
    handlers: dict[str, Callable[[int, FrameType | None], None]] = {
        "SIGTERM": signal.default_int_handler,
        # uvicorn stops gracefully on SIGTERM only, and a closed terminal sends this.
        "SIGHUP": lambda *_: signal.raise_signal(signal.SIGTERM),
    }
    replaced = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Whoever ignores one (nohup) goes on doing so.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            replaced[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in replaced.items():
            signal.signal(number, before)


@contextmanager
def signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call `stop` instead of raising KeyboardInterrupt.

    Python raises that wherever it is, also where it is printed and lost, as in the callback of a
    weak reference. uvicorn listens to signals only once it has begun, and raises the one that
    ended it once more at the end.

    Args:
        stop: asks a server to end; called in the main thread, perhaps more than once.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    replaced = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is signal.default_int_handler
    ]
    for number in replaced:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.default_int_handler)

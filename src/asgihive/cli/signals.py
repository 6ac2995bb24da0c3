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

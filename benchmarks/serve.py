"""The process of one server: `python -m benchmarks.serve APP DIRECTORY`.

Prints the port it listens on, serves until SIGTERM, and ends by itself when its standard input
does, so that no server outlives a benchmark that was killed.
"""

import os
import signal
import socket
import sys
import threading
from importlib import import_module

import uvicorn


def _end_with_standard_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(module: str, directory: str) -> None:
    app = import_module(f"benchmarks.apps.{module}").create(directory)
    config = uvicorn.Config(app, access_log=False, log_level="warning")
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])

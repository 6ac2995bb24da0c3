"""Finds the peers' programs, and ports for those that cannot choose one themselves."""

import os
import shutil
import socket


def program(name: str) -> str | None:
    """Find a program: as its variable (BENCHMARK_TILED, …) says, else on the PATH."""
    return shutil.which(os.environ.get(variable(name), name))


def missing(name: str) -> str | None:
    """Return why a program cannot be run, or None if it can."""
    if program(name) is not None:
        return None
    return f"no {name} on the PATH, nor does {variable(name)} name one"


def variable(name: str) -> str:
    return f"BENCHMARK_{name.upper()}"


def find_free_port() -> int:
    """Return a free port, which another program could take before it is used."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def installed(name: str) -> str:
    """Do as `program`, for one that was found before."""
    found = program(name)
    assert found is not None, name
    return found

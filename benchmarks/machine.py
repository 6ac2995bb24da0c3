"""What a figure was measured on: without it no figure means anything."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py

_PACKAGES = ("asgihive", "h5grove", "uvicorn", "uvloop", "httptools", "starlette", "fastapi")
_LIBRARIES = ("h5py", "numpy", "isal", "imagecodecs", "bitshuffle", "hdf5plugin")


def describe(load: str, connections: int) -> Mapping[str, str]:
    """Return machine, versions and load, in the order in which they are shown."""
    packages = {name: found for name in (*_PACKAGES, *_LIBRARIES) if (found := _version(name))}
    return {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {found}" for name, found in packages.items()),
        "hdf5": h5py.version.hdf5_version,
        "load": f"{load}, {connections} connections",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next((" ".join(model.split()) for model in models), platform.machine())

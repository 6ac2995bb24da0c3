"""HDF5 files over HTTP, fast and safely, in plain ASGI."""

__version__ = "0.1.0"

"""Services with small bounds, in the place of those that are constants."""

from pathlib import Path
from types import ModuleType

import pytest

from asgihive.service import H5App, batch, operations, store
from asgihive.settings import H5Settings

# Where each constant is that a service looks at when it is built.
_PLACES: dict[str, ModuleType] = {
    "READ_AHEAD_BYTES": store,
    "MAX_WAITING_REQUESTS": store,
    "MAX_BODY_BYTES": batch,
    "TIMEOUT_SECONDS": operations,
}


def bounded(root: Path, settings: H5Settings | None = None, **constants: float) -> H5App:
    """Build a service over `root`, with other constants, by their names in lower case."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(_PLACES[name.upper()], name.upper(), value)
        return H5App(root, H5Settings() if settings is None else settings)

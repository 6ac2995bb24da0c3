"""What asgihive is measured beside, other than a Python application on uvicorn."""

from collections.abc import Mapping

from benchmarks.peers import hsds, nginx, tiled


def missing() -> Mapping[str, str]:
    """Return the peers that cannot take part here, and why."""
    found = {each.NAME: each.missing() for each in (nginx, tiled, hsds)}
    return {name: why for name, why in found.items() if why is not None}

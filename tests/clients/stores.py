"""URLs of files, and stores of zarr-python that are not fsspec's."""

from typing import Any


def over_obstore(url: str, **options: Any) -> Any:
    """Return the store at a URL, read by obstore, with options of its HTTP client."""
    from obstore.store import HTTPStore  # noqa: PLC0415  # may not be there
    from zarr.storage import ObjectStore  # noqa: PLC0415  # as above

    client: Any = {"allow_http": True, **options}
    return ObjectStore(HTTPStore.from_url(url, client_options=client), read_only=True)


def quote_fragment(name: str) -> str:
    """Escape what a URL cannot have inside, as a person would."""
    return name.replace("%", "%25").replace("#", "%23").replace("?", "%3F")

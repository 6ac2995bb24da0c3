"""HDF5 names: bytes in the file, text in an answer.

HDF5 says UTF-8 or ASCII, files say otherwise. What is not UTF-8 is shown with U+FFFD, and a
name asked for with U+FFFD finds the one that is shown so.
"""


def text(name: bytes) -> str:
    """How a name or a string is shown."""
    return name.decode("utf-8", "replace")


def encoded(name: str) -> bytes:
    """The bytes that a client's text stands for; `%FF` in a URL arrives as a surrogate."""
    return name.encode("utf-8", "surrogateescape")


def components(path: bytes) -> list[bytes]:
    """The links that a path passes through; `.` and repeated slashes mean nothing in HDF5."""
    return [part for part in path.split(b"/") if part not in {b"", b"."}]

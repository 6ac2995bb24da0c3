"""From values to the bytes and headers of an answer."""

from collections.abc import Iterator

from asgihive.asgi import BufferedResponse, format_content_disposition
from asgihive.context import measured
from asgihive.encoders.protocol import Encoder, Values
from asgihive.hdf5.buffers import find_bytes
from asgihive.hdf5.datasets import Array
from asgihive.hdf5.plan import plan_blocks
from asgihive.hdf5.selection import select_all
from asgihive.hdf5.views import View
from asgihive.padding import zero_padding


def headers_of(encoder: Encoder, values: Values, view: View | None) -> dict[str, str]:
    """What an answer with these values says of them; of a view, also what it shows."""
    headers = {"content-type": encoder.media_type}
    if encoder.extension is not None:
        name = f"{values.name or 'data'}.{encoder.extension}"
        headers["content-disposition"] = format_content_disposition(name)
    if view is not None:
        headers["x-asgihive-shape"] = ",".join(map(str, view.selection.shape))
        headers["x-asgihive-factors"] = ",".join(map(str, view.factors))
        headers["x-asgihive-method"] = view.method
    return headers


@measured("encode")
def encode(encoder: Encoder, values: Values, array: Array, first: int) -> list[bytes]:
    """The pieces of some elements of `values`, of which `first` come before these."""
    return [
        _as_bytes(encoder.block(values, piece, first + before))
        for piece, before in _cut(zero_padding(array), encoder.block_elements)
    ]


def whole_response(
    encoder: Encoder, values: Values, pieces: list[bytes], view: View | None
) -> BufferedResponse:
    """The answer of which these are all pieces."""
    body = joined([encoder.head(values), *pieces, encoder.tail(values)])
    return BufferedResponse(body, headers=headers_of(encoder, values, view))


def joined(pieces: list[bytes]) -> bytes:
    """One piece of all; without a copy, where only one of them is not empty."""
    filled = [piece for piece in pieces if piece]
    return filled[0] if len(filled) == 1 else b"".join(filled)


def _cut(array: Array, most: int) -> Iterator[tuple[Array, int]]:
    """Pieces of at most `most` elements, each whole rows of one axis, and where they begin."""
    if array.size <= most:
        yield array, 0
        return
    for block in plan_blocks(select_all(array.shape), None, 1, most):
        index = tuple(slice(axis.start, axis.stop) for axis in block.axes)
        yield array[index].reshape(block.shape), block.first


def _as_bytes(block: bytes | memoryview) -> bytes:
    """ASGI takes bytes, and servers differ in what else they put up with."""
    if isinstance(block, bytes):
        return block
    return find_bytes(block) or bytes(block)

"""NumPy arrays as answers, through the encoders."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt

from asgihive.asgi.negotiation import choose_media_type
from asgihive.asgi.responses import (
    BodyChunk,
    BufferedResponse,
    StreamedResponse,
    closing,
    format_content_disposition,
)
from asgihive.concurrency import run_in_worker
from asgihive.encoders import Encoder, Values, accepted_types, check
from asgihive.encoders.json import ENCODER
from asgihive.encoders.protocol import cut
from asgihive.hdf5.buffers import zero_padding

# What is encoded without a thread.
_INLINE_BYTES = 1 << 16


async def array_response(
    value: npt.NDArray[Any] | np.generic, accept: str, status: int
) -> BufferedResponse | StreamedResponse:
    """An array, or a scalar, in the format that `Accept` asks for among those that fit; JSON else.

    A large one is encoded piece by piece in worker threads and streamed; it must not change
    meanwhile.

    Raises:
        FormatMismatch: not even JSON fits.
    """
    array = np.asarray(value, order="C")
    values = Values("", array.shape, array.dtype)
    encoder: Encoder = ENCODER
    if accept not in {"", "*/*", ENCODER.media_type}:
        # In a thread, for the first use of the registry imports every format.
        encoder = await run_in_worker(_encoder, values, accept)
    check(encoder, values)
    headers = {"content-type": encoder.media_type, "vary": "accept"}
    if encoder.extension is not None:
        headers["content-disposition"] = format_content_disposition(f"data.{encoder.extension}")
    blocks = _blocks(encoder, values, array)
    if array.nbytes <= _INLINE_BYTES and array.size <= encoder.block_elements:
        body = b"".join([block async for block in blocks])
        return BufferedResponse(body, status, headers)
    return StreamedResponse(
        body_chunks=closing(blocks),
        content_length=encoder.length(values),
        status=status,
        headers=headers,
    )


def _encoder(values: Values, accept: str) -> Encoder:
    fitting = {
        media_type: each
        for media_type, each in accepted_types().items()
        if each.refusal(values) is None
    }
    # JSON first: it is what any type (`*/*`) means.
    chosen = choose_media_type(accept, [ENCODER.media_type, *fitting])
    return fitting.get(chosen or ENCODER.media_type, ENCODER)


async def _blocks(
    encoder: Encoder, values: Values, array: npt.NDArray[Any]
) -> AsyncIterator[BodyChunk]:
    yield encoder.head(values)
    first = 0
    for piece in cut(array, encoder.block_elements) if values.size else ():
        if piece.nbytes <= _INLINE_BYTES:
            yield _encoded(encoder, values, piece, first)
        else:
            yield await run_in_worker(_encoded, encoder, values, piece, first)
        first += piece.size
    yield encoder.tail(values)


def _encoded(encoder: Encoder, values: Values, piece: npt.NDArray[Any], first: int) -> BodyChunk:
    return encoder.block(values, zero_padding(piece), first)

"""Parts of a body, as a range asks for them: the elements of which it is made."""

from dataclasses import dataclass

from asgihive.asgi import ByteRange
from asgihive.encoders.bin import Bin
from asgihive.encoders.npy import Npy
from asgihive.encoders.protocol import Encoder, Values


def has_parts(encoder: Encoder) -> bool:
    """Whether a body is a head and then the elements as they lie in memory, and nothing else."""
    return isinstance(encoder, Bin | Npy)


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a body, and what of the body is needed for it.

    range: the bytes, of a body of `size`.
    head: what comes before the elements, if a byte of it is in the range.
    skip: bytes before the range, of the head or of the first element.
    elements: from which to before which one are needed, of those of the dataset.
    """

    range: ByteRange
    size: int
    head: bytes
    elements: tuple[int, int]
    skip: int

    @property
    def headers(self) -> dict[str, str]:
        return {"content-range": self.range.format_content_range(self.size)}

    def cut(self, piece: bytes, before: int) -> bytes:
        """What is in the range of a piece that comes so many bytes behind the start of `head`."""
        first = self.skip - before
        return piece[max(0, first) : max(0, first + self.range.length)]


def part_of(encoder: Encoder, values: Values, item_size: int, wanted: ByteRange) -> Part:
    """The part of the body that is `wanted`.

    Args:
        item_size: how many of `values` an element of the dataset is.
    """
    head = encoder.head(values)
    item_bytes = max(1, item_size * values.dtype.itemsize)
    start, stop = max(0, wanted.start - len(head)), max(0, wanted.stop - len(head))
    first, last = start // item_bytes, -(-stop // item_bytes)
    if wanted.start < len(head):
        skip = wanted.start
    else:
        head, skip = b"", start - first * item_bytes
    size = len(encoder.head(values)) + values.nbytes
    return Part(wanted, size, head, (first, last), skip)

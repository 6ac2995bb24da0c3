"""Frames: whatever comes in whichever pieces is what was sent."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.service.isolation.channel import MOST_JOINED_BYTES, Channel, ChannelClosed
from asgihive.service.isolation.frames import HEAD, MOST_PAYLOAD_BYTES, Decoder, Frame, Kind

payloads = st.one_of(
    st.binary(max_size=50),
    st.integers(8000, 200_000).map(lambda size: bytes(range(256)) * (size // 256 + 1)),
)
frames = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**64 - 1), payloads), max_size=6
)


@given(frames, st.lists(st.integers(1, 100_000), min_size=1))
def test_frames_come_out_as_they_went_in(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(
        HEAD.pack(len(each.payload), each.kind, each.request) + each.payload for each in sent
    )
    decoder, received, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        room = decoder.room()
        piece = stream[at : at + min(len(room), cuts[turn % len(cuts)])]
        room[: len(piece)] = piece
        received += decoder.take(len(piece))
        at, turn = at + len(piece), turn + 1
    assert [(each.kind, each.request, bytes(each.payload)) for each in received] == sent


def test_a_frame_that_nobody_sends_is_refused() -> None:
    decoder = Decoder()
    decoder.room()[: HEAD.size] = HEAD.pack(MOST_PAYLOAD_BYTES + 1, Kind.BODY, 1)
    with pytest.raises(ValueError, match=f"at most {MOST_PAYLOAD_BYTES} are accepted"):
        decoder.take(HEAD.size)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_what_the_socket_does_not_take_is_sent_later(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    sent = [bytes([number]) * (MOST_JOINED_BYTES - 10 + 5 * number) for number in range(200)]
    for number, payload in enumerate(sent):
        one.put(Kind.BODY, number, payload)
    assert not one.flush()
    received: list[Frame] = []
    while len(received) < len(sent):
        received += other.read()
        one.flush()
    assert not one.has_unsent
    assert [bytes(each.payload) for each in received] == sent
    assert [each.request for each in received] == list(range(len(sent)))
    assert other.read() == []


def test_an_end_that_is_gone(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other.put(Kind.READY)
    other.flush()
    other.close()
    assert one.read() == [(Kind.READY, 0, b"")]
    with pytest.raises(ChannelClosed):
        one.read()
    one.put(Kind.PING)
    with pytest.raises(ChannelClosed):
        one.flush()


def test_an_end_that_talks_nonsense(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other.socket.sendall(b"\xff" * 100)
    with pytest.raises(ChannelClosed):
        one.read()

"""How memory is kept, and whose it is."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgihive.hdf5 import buffers
from asgihive.hdf5.buffers import find_bytes, read_cached_bytes

# Threads that all hold memory at once; then glibc tells of its arenas.
PROGRAM = """
import ctypes, sys, threading
import numpy as np
from asgihive.hdf5.buffers import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
barrier = threading.Barrier(4)

def hold():
    kept = np.empty(1 << 16, np.uint8)
    barrier.wait()

threads = [threading.Thread(target=hold) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stdout = libc.fdopen(1, b"w")
libc.malloc_info(0, ctypes.c_void_p(stdout))
libc.fflush(ctypes.c_void_p(stdout))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(
    ("how", "environment", "is_one"),
    [
        pytest.param("own", {}, False, marks=pytest.mark.slow),
        ("shared", {}, True),
        ("shared", {"MALLOC_ARENA_MAX": "3"}, False),
    ],
)
def test_threads_share_one_arena(how: str, environment: dict[str, str], is_one: bool) -> None:
    told = {name: text for name, text in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env={**told, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    arenas = len(re.findall("<heap nr=", done.stdout))
    assert (arenas == 1) == is_one
    assert arenas >= 1


# Large blocks with small ones between that live: free memory that is not used, and kept.
FREED = """
import numpy as np
from asgihive.hdf5.buffers import keep_freed_buffers, trim_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

keep_freed_buffers()
before = resident()
large, small = [], []
for _ in range(32):
    large.append(np.ones(1 << 20, np.uint8))
    small.append(np.ones(1 << 17, np.uint8))
held = resident()
del large
kept = resident()
trim_freed_memory()
left = resident()
print(held - before, kept - before, left - before, sum(map(np.sum, small)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_trimming_gives_back_what_is_freed_between_blocks_that_live() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    held, kept, left, alive = map(int, done.stdout.split())
    assert kept > held * 0.8
    assert left < held * 0.2
    assert alive == 32 << 17


RAW = bytes(range(100))


@pytest.mark.parametrize(
    ("view", "is_all"),
    [
        (np.frombuffer(RAW, np.uint8), True),
        (np.frombuffer(RAW, "<i4").reshape(5, 5).view(np.uint8).data, True),
        (memoryview(RAW), True),
        (np.frombuffer(RAW, np.uint8)[1:], False),
        (np.frombuffer(RAW, np.uint8)[::-1], False),
        (np.frombuffer(RAW, np.uint8)[::-1].data, False),
        (np.frombuffer(RAW, np.uint8).reshape(10, 10).T, False),
        (np.frombuffer(bytearray(RAW), np.uint8), False),
        (np.arange(5), False),
        (np.frombuffer(RAW, np.uint8).copy(), False),
    ],
)
def test_the_bytes_object_that_is_shown(view: Any, is_all: bool) -> None:
    assert find_bytes(view) is (RAW if is_all else None)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="preadv2(2) of Linux")
@pytest.mark.parametrize("can_fill", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 100_000])
def test_bytes_in_memory_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, *, can_fill: bool
) -> None:
    if not can_fill:
        monkeypatch.setattr(buffers, "_CAN_FILL_BYTES", False)
    content = np.random.default_rng(size).bytes(120_000)
    path = tmp_path / "x"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for offset in (0, 7, 50_000, 119_000, 130_000):
            read = [read_cached_bytes(descriptor, size, offset) for _ in range(3)]
            # Now and then the kernel has a page in memory, and does not give it without waiting.
            for each in filter(lambda each: each is not None, read):
                assert type(each) is bytes
                assert each == content[offset : offset + size]
                assert hash(each) == hash(content[offset : offset + size])
        assert any(each is not None for each in read)
    finally:
        os.close(descriptor)

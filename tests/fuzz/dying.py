"""Stands in for `tests.fuzz.asking`: what it asks ends it, or goes on for ever, by seed."""

import faulthandler
import json
import os
import sys
import threading

ABORTS, HANGS, COMPLAINS = {1, 2}, {4}, {5}


def _say(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def crash_in_a_decoder() -> None:
    os.abort()


def _main(first: int, count: int) -> None:
    for seed in range(first, first + count):
        _say(seed=seed, source="a.h5", request=f"/meta?seed={seed}")
        os.write(1, b"HDF5: what libhdf5 prints\n")
        if seed in ABORTS:
            os.write(1, b'{"cut off')
            crash_in_a_decoder()
        if seed in HANGS:
            threading.Event().wait()
        if seed in COMPLAINS:
            _say(complaint="it is blue", details="Traceback\nValueError: blue", damages=["flip"])
        _say(done=seed, statuses={"200": 2}, seconds=0.5)


if __name__ == "__main__":
    faulthandler.enable()
    _main(int(sys.argv[2]), int(sys.argv[3]))

"""From one decode lane to one per core: asgihive beside itself."""

from asgihive.settings import H5Settings
from benchmarks import rate, verify
from benchmarks.kinds import frames
from benchmarks.question import HDF5_SERVERS
from benchmarks.questions.frames import CACHE_OFF
from benchmarks.servers import SUBJECT, on_uvicorn, with_setting

_CORES = H5Settings().decode_lanes


def _name(lanes: int) -> str:
    return f"{lanes} lane{'s' if lanes > 1 else ''}"


# Powers of two below the number of cores, which is what asgihive takes by itself.
_FEWER = [1 << power for power in range(_CORES.bit_length()) if 1 << power < _CORES] or [1]

QUESTION = rate.RateQuestion(
    name="lanes",
    asks=f"gzip+shuffle frames, chunk cache off, with {_name(_CORES)}, and with fewer",
    make=frames.gzip_frames,
    target_of=rate.values,
    check=verify.check_bytes,
    targets={_name(lanes): None for lanes in _FEWER},
    servers={
        SUBJECT: HDF5_SERVERS[SUBJECT],
        **{
            _name(lanes): with_setting(on_uvicorn("asgihive"), "ASGIHIVE_DECODE_LANES", str(lanes))
            for lanes in _FEWER
        },
    },
    environment=CACHE_OFF,
    heavy=True,
    probed=False,
)

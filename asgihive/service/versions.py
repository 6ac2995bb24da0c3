"""Which version of an answer this is: validators out of the files that took part in it."""

import time
from hashlib import blake2b
from importlib.metadata import version

from asgihive.asgi import Validators
from asgihive.hdf5.identity import Identity
from asgihive.hdf5.pool import Lease
from asgihive.settings import H5Settings

# Another version of these may make other bytes of the same values.
_MAKERS = tuple(version(name) for name in ("asgihive", "h5py", "msgpack", "numpy", "orjson"))

_TAG_BYTES = 16


def versions_seed(settings: H5Settings) -> bytes:
    """What all entity-tags of a service have in common: the rules by which answers are made."""
    rules = (_MAKERS, settings.follow_symlinks)
    return blake2b(repr(rules).encode(), digest_size=_TAG_BYTES).digest()


def validators_of(seed: bytes, request: tuple[object, ...], lease: Lease) -> Validators:
    """Those of the answer to `request` that is made of all that `lease` depends on.

    None while a file of it is live, or was written so lately that a further change might not
    show in its identity: what cannot be told from the next version must not be called the same.

    Args:
        seed: from `versions_seed`.
        request: what was asked for, in one form, and the format of the answer; the `repr`
            says all of it.
    """
    if not lease.settled:
        return Validators()
    root = lease.pool.sandbox.root
    files = sorted(
        (path.removeprefix(root), _content(identity)) for path, identity in lease.depends.items()
    )
    content = repr((request, files)).encode()
    tag = f'"{blake2b(content, digest_size=_TAG_BYTES, key=seed).hexdigest()}"'
    dated = _dated(lease)
    if not dated:
        return Validators(tag)
    modified, changed = (max(times) for times in zip(*dated, strict=True))
    return Validators.from_times(tag, modified, changed, time.time_ns(), exact=len(dated) == 1)


def _content(identity: Identity | None) -> tuple[int, ...]:
    """Without the device: machines that share a network file system number it as they like."""
    if identity is None:
        return ()
    return identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns


def _dated(lease: Lease) -> list[tuple[int, int]]:
    """When each file was modified and changed; nothing if that does not tell of every change.

    A symbolic link may lead to an older file from now on, and what was missing may turn up
    with an old date.
    """
    direct = {
        file.place.asked for file in lease.files.values() if file.place.asked == file.place.real
    }
    if not lease.depends.keys() <= direct:
        return []
    return [
        (identity.mtime_ns, identity.ctime_ns)
        for identity in lease.depends.values()
        if identity is not None
    ]

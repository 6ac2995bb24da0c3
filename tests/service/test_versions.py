"""Entity-tags: what changes them, and what does not."""

from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from asgihive.asgi import Validators
from asgihive.hdf5.open_file import Unsettled
from asgihive.hdf5.pool import Lease
from asgihive.service.requests import make_seed, make_version, parse_wanted
from asgihive.settings import H5Settings
from tests.asgi.exchange import http
from tests.hdf5.serving import leased

SEED = make_seed(H5Settings())
REQUEST = ("data", "bin", "x.h5", "/x", "", False, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = 1
    return tmp_path


def opened(lease: Lease) -> Lease:
    while True:
        try:
            lease.open_asked("x.h5")
        except Unsettled:
            continue
        return lease


def tag_of(lease: Lease, *, seed: bytes = SEED, request: tuple[object, ...] = REQUEST) -> str:
    tag = make_version(seed, request, lease).validators.etag
    assert tag is not None
    return tag


def test_the_place_of_the_directory_makes_no_difference(root: Path, tmp_path: Path) -> None:
    """Nor the number of the device: servers that share a file system agree on the tags."""
    with leased(root) as lease:
        tag = tag_of(opened(lease))
        (path, identity), *_ = lease.depends.items()
        assert identity is not None
        lease.depends[path] = replace(identity, device=identity.device + 1)
        assert tag_of(lease) == tag
        lease.pool.sandbox.root = "/elsewhere"
        lease.depends.clear()
        lease.depends["/elsewhere/x.h5"] = identity
        assert tag_of(lease) == tag


@pytest.mark.parametrize("name", ["inode", "size", "mtime_ns", "ctime_ns"])
def test_whatever_may_change_with_the_content_makes_one(root: Path, name: str) -> None:
    with leased(root) as lease:
        tag = tag_of(opened(lease))
        (path, identity), *_ = lease.depends.items()
        assert identity is not None
        lease.depends[path] = replace(identity, **{name: getattr(identity, name) + 1})
        assert tag_of(lease) != tag


def test_every_file_counts_in_any_order(root: Path) -> None:
    with leased(root) as lease:
        tags = [tag_of(opened(lease))]
        (identity,) = lease.depends.values()
        for name in ("b", "a"):
            lease.depends[f"{root}/{name}"] = None
            tags.append(tag_of(lease))
        turned = dict(reversed(lease.depends.items()))
        lease.depends.clear()
        lease.depends.update(turned)
        assert tag_of(lease) == tags[-1]
        lease.depends[f"{root}/a"] = identity
        tags.append(tag_of(lease))
        assert len(set(tags)) == len(tags)


def test_the_request_and_the_rules_count(root: Path) -> None:
    other = make_seed(H5Settings(follow_symlinks=True))
    assert other == make_seed(H5Settings(follow_symlinks=True))
    with leased(root) as lease:
        tags = {
            tag_of(opened(lease)),
            tag_of(lease, seed=other),
            tag_of(lease, request=(*REQUEST[:-1], True)),
            # Names that are not UTF-8 arrive as surrogates.
            tag_of(lease, request=(*REQUEST[:3], "/\udcff")),
            tag_of(lease, request=(*REQUEST[:3], "/\udcfe")),
        }
    assert len(tags) == 5


def test_what_may_still_change_unseen_has_none(root: Path) -> None:
    with leased(root) as lease:
        assert make_version(SEED, REQUEST, opened(lease)).validators != Validators()
        for file in lease.files.values():
            file.settled = False
        assert make_version(SEED, REQUEST, lease).validators == Validators()


def test_the_fields_of_a_request() -> None:
    headers = [
        (b"host", b"here"),
        (b"if-none-match", b'"a"'),
        (b"range", b"bytes=0-1"),
        (b"if-none-match", b'"b\xff"'),
    ]
    wanted = parse_wanted(http(headers=headers).scope, "", has_format=True, is_compressible=True)
    assert wanted.fields == {"if-none-match": '"a", "b\xff"', "range": "bytes=0-1"}
    assert wanted.is_conditional
    headers = [(b"range", b"bytes=0-1"), (b"if-range", b'"a"')]
    wanted = parse_wanted(http(headers=headers).scope, "", has_format=True, is_compressible=True)
    assert not wanted.is_conditional

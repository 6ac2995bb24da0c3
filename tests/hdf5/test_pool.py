"""The pool of open files: sharing, changes, bounds, and nothing left open."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asgihive.errors import FileChanged, FileMissing, FileUnreadable, Overloaded
from asgihive.hdf5 import sandbox
from asgihive.hdf5.open_file import OpenFile, Unsettled, close_id, libhdf5_reason
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import select_all
from asgihive.hdf5.pool import FilePool, Lease
from asgihive.hdf5.sandbox import Identity
from tests.hdf5.serving import descriptors, leased, pool_of


def write(path: Path, value: int = 1, count: int = 3) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.full(count, value)


def read(lease: Lease, file: OpenFile, count: int = 3) -> list[int]:
    dataset = find_dataset(lease, file, "data")
    values: list[int] = dataset.read(lease, select_all((count,)).axes).tolist()
    return values


@contextmanager
def as_lease_of(pool: FilePool, name: str) -> Iterator[tuple[Lease, OpenFile]]:
    lease = Lease(pool)
    try:
        yield lease, lease.open_asked(name)
    finally:
        lease.release()


@pytest.fixture
def pool(root: Path) -> Iterator[FilePool]:
    write(root / "main.h5")
    write(root / "other.h5", 2)
    pool = pool_of(root)
    yield pool
    pool.close()
    assert len(pool) == 0


def test_a_file_is_opened_once(pool: FilePool, root: Path) -> None:
    (root / "link.h5").symlink_to("main.h5")
    leases = [Lease(pool) for _ in range(3)]
    names = ["main.h5", "./main.h5", "main.h5"]
    files = [lease.open_asked(name) for lease, name in zip(leases, names, strict=True)]
    assert len({id(file) for file in files}) == 1
    assert files[0].holders == set(leases)
    # By another path its relative links start elsewhere.
    alias = Lease(pool)
    assert alias.open_asked("link.h5").place.asked == str(root / "link.h5")
    assert set(alias.depends) == {str(root / "link.h5")}
    for lease in (*leases, alias):
        lease.check()
        lease.release()
        lease.release()
    assert not files[0].holders
    assert len(pool) == 2


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def linked(path: Path) -> None:
    path.with_name("hard.h5").hardlink_to(path)


def moded(path: Path) -> None:
    path.chmod(0o600)


def owned(path: Path) -> None:
    os.chown(path, os.getuid(), os.getgid())


def renamed(path: Path) -> None:
    path.rename(path.with_name("renamed.h5"))


def replaced(path: Path) -> None:
    write(path.with_name("new"), 9)
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [touched, rewritten, grown])
def test_a_changed_file_is_opened_anew(
    pool: FilePool, root: Path, change: Callable[[Path], None]
) -> None:
    first, second = Lease(pool), Lease(pool)
    old = first.open_asked("main.h5")
    dataset = find_dataset(first, old, "data")
    first.check()
    change(root / "main.h5")
    with pytest.raises(FileChanged):
        first.check()
    new = second.open_asked("main.h5")
    assert new is not old
    assert old.revoked
    assert old.changed()
    assert not new.changed()
    assert read(second, new) == [1, 1, 1]
    with pytest.raises(FileChanged):
        dataset.read(first, select_all((3,)).axes)


@pytest.mark.parametrize("change", [linked, replaced, Path.unlink, moded, owned, renamed])
def test_a_replaced_file_is_whole_as_long_as_it_is_held(
    pool: FilePool, root: Path, change: Callable[[Path], None]
) -> None:
    lease = Lease(pool)
    old = lease.open_asked("main.h5")
    change(root / "main.h5")
    assert not old.changed()
    assert read(lease, old) == [1, 1, 1]
    lease.check()


def test_after_a_replacement_others_read_the_new_file(pool: FilePool, root: Path) -> None:
    holder, other = Lease(pool), Lease(pool)
    old = holder.open_asked("main.h5")
    replaced(root / "main.h5")
    new = other.open_asked("main.h5")
    assert (read(holder, old), read(other, new)) == ([1] * 3, [9] * 3)


@pytest.mark.parametrize("change", [linked, moded, owned])
def test_a_change_of_names_owners_or_modes_breaks_no_request(
    pool: FilePool, root: Path, change: Callable[[Path], None]
) -> None:
    """Neither that which reads, nor by those that come meanwhile."""
    holder, other = Lease(pool), Lease(pool)
    old = holder.open_asked("main.h5")
    change(root / "main.h5")
    assert other.open_asked("main.h5") is old
    # Once more under the same lease, as a virtual dataset opens its sources for each block.
    assert holder.open_asked("main.h5") is old
    for lease in (holder, other):
        assert read(lease, old) == [1] * 3
        lease.check()
        assert not lease.settled
        lease.release()
    # What is read next may be kept again.
    after = Lease(pool)
    new = after.open_asked("main.h5")
    assert new is not old
    assert old.revoked
    assert after.settled
    assert after.depends == {str(root / "main.h5"): Identity.of(os.stat(root / "main.h5"))}


def test_a_writer_that_puts_the_time_back_is_noticed_between_requests(
    pool: FilePool, root: Path
) -> None:
    """Only the change time tells, which no program can set."""
    path = root / "main.h5"
    before = os.stat(path)
    with as_lease_of(pool, "main.h5") as (lease, old):
        assert read(lease, old) == [1] * 3
    write(root / "new.h5", 8)
    path.write_bytes((root / "new.h5").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    lease = Lease(pool)
    assert read(lease, lease.open_asked("main.h5")) == [8] * 3


def rows(path: Path) -> None:
    """What points to libhdf5's file in memory: variable-length members of a compound."""
    with h5py.File(path, "w") as file:
        kind = [("i", "i4"), ("s", h5py.string_dtype())]
        data = file.create_dataset("rows", (50,), kind)
        data[...] = np.array([(i, f"text {i}") for i in range(50)], data.dtype)


def read_rows(lease: Lease, file: OpenFile) -> list[bytes]:
    dataset = find_dataset(lease, file, "rows")
    return [each["s"] for each in dataset.read(lease, select_all((50,)).axes)]


EXPECTED_ROWS = [f"text {i}".encode() for i in range(50)]


@pytest.mark.parametrize("name", ["hard.h5", "soft.h5"])
def test_two_names_of_a_file_are_one_handle(pool: FilePool, root: Path, name: str) -> None:
    rows(root / "rows.h5")
    (root / "hard.h5").hardlink_to(root / "rows.h5")
    (root / "soft.h5").symlink_to("rows.h5")
    before = descriptors()
    first, second = Lease(pool), Lease(pool)
    one, two = first.open_asked("rows.h5"), second.open_asked(name)
    assert descriptors() == before + 1
    assert one.handle is two.handle
    assert {each.place.asked for each in (one, two)} == {str(root / "rows.h5"), str(root / name)}
    assert read_rows(first, one) == read_rows(second, two) == EXPECTED_ROWS
    # As when it falls idle: what was decoded through it lives on.
    pool.close_file(one.key)
    assert one.changed()
    assert not two.changed()
    assert read_rows(second, two) == EXPECTED_ROWS
    with as_lease_of(pool, "rows.h5") as (lease, again):
        assert again.handle is two.handle
        pool.close_file(two.key)
        assert read_rows(lease, again) == EXPECTED_ROWS
    pool.close()
    assert descriptors() == before


def test_two_services_in_one_process_share_handles(pool: FilePool, root: Path) -> None:
    rows(root / "rows.h5")
    other = pool_of(root)
    mine, theirs = Lease(pool), Lease(other)
    file = theirs.open_asked("rows.h5")
    assert mine.open_asked("rows.h5").handle is file.handle
    assert read_rows(theirs, file) == EXPECTED_ROWS
    pool.close()
    assert read_rows(theirs, file) == EXPECTED_ROWS
    theirs.check()
    with pytest.raises(FileChanged):
        mine.check()
    other.close()
    assert file.handle.closed


def test_pools_that_are_forgotten_close_their_files(root: Path) -> None:
    write(root / "main.h5")
    gc.collect()  # what other tests have left
    before = descriptors()
    for _ in range(3):
        lease = Lease(pool_of(root))
        lease.open_asked("main.h5")
        lease.release()
        del lease
    gc.collect()
    assert descriptors() == before


def test_one_name_that_changed_is_not_served_by_the_handle_of_another(
    pool: FilePool, root: Path
) -> None:
    (root / "hard.h5").hardlink_to(root / "main.h5")
    with as_lease_of(pool, "hard.h5") as (lease, file):
        assert read(lease, file) == [1] * 3
    write(root / "new.h5", 5, count=99)
    (root / "main.h5").write_bytes((root / "new.h5").read_bytes())
    with as_lease_of(pool, "main.h5") as (lease, changed):
        assert read(lease, changed, 99) == [5] * 99
        assert file.revoked
        with as_lease_of(pool, "hard.h5") as (again, same):
            assert read(again, same, 99) == [5] * 99
            assert same.handle is changed.handle


def test_one_lease_never_mixes_two_contents(pool: FilePool, root: Path) -> None:
    lease = Lease(pool)
    old = lease.open_asked("main.h5")
    touched(root / "main.h5")
    with pytest.raises(FileChanged):
        lease.open_asked("main.h5")
    lease.release()
    # Nor does it keep hold of the one that it did not get.
    assert not old.holders
    other = Lease(pool)
    assert other.open_asked("main.h5").holders == {other}


def test_pools_on_one_inode_know_of_each_other(pool: FilePool, root: Path) -> None:
    """libhdf5 shares what it knows of an inode between all handles of a process."""
    other = pool_of(root)
    mine, theirs = Lease(pool), Lease(other)
    old = mine.open_asked("main.h5")
    assert read(theirs, theirs.open_asked("main.h5")) == [1] * 3
    mine.check()
    write(root / "changed.h5", 5, count=99)
    (root / "main.h5").write_bytes((root / "changed.h5").read_bytes())
    theirs = Lease(other)
    assert read(theirs, theirs.open_asked("main.h5"), 99) == [5] * 99
    assert old.revoked
    with pytest.raises(FileChanged):
        mine.check()
    other.close()


def test_the_least_recently_used_idle_file_makes_room(root: Path) -> None:
    for number in range(4):
        write(root / f"{number}.h5", number)
    pool = pool_of(root, max_open=2)
    kept, passing = Lease(pool), Lease(pool)
    held = kept.open_asked("0.h5")
    passed = passing.open_asked("1.h5")
    passing.release()
    third = Lease(pool)
    third.open_asked("2.h5")
    assert passed.revoked
    assert not held.revoked
    with pytest.raises(Overloaded, match="2 files"):
        Lease(pool).open_asked("3.h5")
    third.release()
    assert read(Lease(pool), Lease(pool).open_asked("3.h5")) == [3] * 3
    assert len(pool) == 2
    pool.close()


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_idle_files_are_closed(root: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    write(root / "main.h5")
    write(root / "other.h5")
    pool = pool_of(root, idle_seconds=seconds)
    lease, idle = Lease(pool), Lease(pool)
    lease.open_asked("main.h5")
    idle.open_asked("other.h5")
    idle.release()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds + 1)
    pool.close_idle()
    assert [file.place.name for file in pool.files.values()] == ["main.h5"]
    lease.release()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * seconds + 2)
    pool.close_idle()
    assert len(pool) == 0


def test_a_just_changed_file_has_to_settle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "main.h5")
    monkeypatch.setattr(sandbox, "FINE_TICK_NS", 10**12)
    before = descriptors()
    pool = pool_of(root)
    lease = Lease(pool)
    with pytest.raises(Unsettled) as caught:
        lease.open_asked("main.h5")
    assert 0 < caught.value.seconds <= 1000
    assert descriptors() == before
    monkeypatch.setattr(sandbox, "FINE_TICK_NS", 0)
    assert lease.open_asked("main.h5").settled


def test_a_stamp_of_another_clock_is_never_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "main.h5")
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with leased(root) as lease:
        file = lease.open_asked("main.h5")
        assert not file.settled
        assert not lease.settled
        lease.release()
        assert Lease(lease.pool).open_asked("main.h5") is not file


def test_a_thread_that_outlived_its_request_holds_nothing(pool: FilePool) -> None:
    lease = Lease(pool)
    lease.release()
    file = lease.open_asked("main.h5")
    assert not file.holders


def test_a_lease_that_is_released_while_it_opens_holds_nothing(
    pool: FilePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(pool)
    acquire = FilePool.acquire

    def released_meanwhile(pool: FilePool, *given: Any) -> OpenFile:
        file = acquire(pool, *given)
        lease.release()
        return file

    monkeypatch.setattr(FilePool, "acquire", released_meanwhile)
    assert not lease.open_asked("main.h5").holders


def test_what_an_answer_depends_on(pool: FilePool, root: Path) -> None:
    lease = Lease(pool)
    with pytest.raises(FileMissing):
        lease.open_asked("absent.h5")
    file = lease.open_asked("main.h5")
    assert lease.depends == {str(root / "absent.h5"): None, str(root / "main.h5"): file.identity}
    other = Lease(pool)
    other.open_asked("other.h5")
    lease.adopt(other)
    assert str(root / "other.h5") in lease.depends
    assert lease.settled
    touched(root / "other.h5")
    later = Lease(pool)
    later.open_asked("other.h5")
    with pytest.raises(FileChanged, match=r"other\.h5"):
        lease.adopt(later)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    gc.collect()  # which would close what earlier tests have left
    before = descriptors()
    yield
    assert descriptors() == before


def test_failures_leave_nothing_open(root: Path) -> None:
    write(root / "main.h5")
    content = (root / "main.h5").read_bytes()
    (root / "text.h5").write_text("not HDF5 at all")
    (root / "empty.h5").touch()
    (root / "cut.h5").write_bytes(content[:-100])
    with h5py.File(root / "new.h5", "w", libver="latest") as file:
        file["data"] = 1
    damaged = bytearray((root / "new.h5").read_bytes())
    damaged[damaged.index(b"OHDR")] ^= 0xFF
    (root / "new.h5").write_bytes(damaged)
    os.mkfifo(root / "fifo.h5")
    pool = pool_of(root)
    for name in ("text.h5", "empty.h5", "cut.h5", "new.h5"):
        with no_descriptor_left(), pytest.raises(FileUnreadable, match="readable HDF5") as caught:
            Lease(pool).open_asked(name)
        assert str(root) not in str(caught.value)
        assert "/proc" not in str(caught.value)
        del caught
    with no_descriptor_left(), pytest.raises(FileMissing):
        Lease(pool).open_asked("fifo.h5")
    assert len(pool) == 0


def test_a_file_that_changes_while_it_is_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "main.h5")
    open_handle = FilePool.open_handle

    def changing(pool: FilePool, *given: Any) -> Any:
        opened = open_handle(pool, *given)
        touched(root / "main.h5")
        return opened

    monkeypatch.setattr(FilePool, "open_handle", changing)
    pool = pool_of(root)
    with no_descriptor_left(), pytest.raises(FileChanged):
        Lease(pool).open_asked("main.h5")
    assert len(pool) == 0


def test_what_libhdf5_says_of_a_damaged_file_as_it_is_closed_is_nobodys_matter() -> None:
    """It has closed the file then; the next request needs the place that this makes."""

    class Damaged:
        closed = 0

        def close(self) -> None:
            self.closed += 1
            message = "Can't decrement id ref count (Pinned entry count not decreasing)"
            raise RuntimeError(message)

    file_id = Damaged()
    close_id(file_id)
    assert file_id.closed == 1


def test_closing_closes_every_descriptor(root: Path) -> None:
    write(root / "main.h5")
    with no_descriptor_left(), leased(root) as lease:
        file = lease.open_asked("main.h5")
        assert isinstance(file.descriptor, int)
        assert os.path.samestat(os.fstat(file.descriptor), os.stat(root / "main.h5"))
        find_dataset(lease, file, "data")


def test_many_spellings_take_little_memory(pool: FilePool) -> None:
    for number in range(200):
        lease = Lease(pool)
        lease.open_asked("./" * number + "main.h5")
        lease.release()
    assert len(pool.by_name) <= 4 * pool.max_open


def test_reasons_do_not_tell_paths() -> None:
    error = OSError("Unable to open file (name = '/secret/place', errno = 2)")
    assert libhdf5_reason(error) == ""
    assert libhdf5_reason(OSError("Can't read (inflate() failed)")) == "inflate() failed"
    assert libhdf5_reason(ValueError("plain")) == "plain"


def test_what_is_let_go_of_again_and_again_is_kept_once(root: Path) -> None:
    with leased(root) as lease:
        pool = lease.pool
        kept = object()
        before = sys.getrefcount(kept)
        for _ in range(100):
            pool.discard([kept])
        assert sys.getrefcount(kept) == before + 1
        pool.close_idle()
        assert sys.getrefcount(kept) == before

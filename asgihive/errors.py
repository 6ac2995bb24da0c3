"""The exceptions of asgihive.

    AsgihiveError
    ├── BadParameter            a parameter's value cannot be used
    │   ├── BadParameters       several of them
    │   ├── BadSelection        a hyperslab selection that does not fit its dataset
    │   ├── FormatMismatch      a format or dtype that does not fit the values
    │   └── UnknownParameter    a name that resembles one of the route's parameters
    ├── ExtraMissing            a package that is not installed is needed
    ├── FileError               concerns one file of the served directory
    │   ├── FileMissing         not there, outside the directory, or not a regular file
    │   │   └── FileOutside     outside the directory, whether it is there or not
    │   ├── FileForbidden       the process may not read it
    │   ├── FileUnreadable      not HDF5, or too damaged to open
    │   ├── FileBeingWritten    a writer has it open, and not for SWMR
    │   ├── FileChanged         changed while it was read; ask again
    │   └── ReaderCrashed       crashed the process that read it
    ├── AnswerBroken            a response that has begun cannot be completed
    ├── RootUnreadable          the served directory itself is gone, or its mount
    ├── StoreError              an object store does not give what it has
    │   ├── StoreUnavailable    it does not answer, or not in time, or with its own errors
    │   ├── StoreRefused        it refuses the credentials of the service
    │   └── StoreUnlisted       it does not tell which files it has
    ├── EntityError             concerns one entity of one file
    │   ├── EntityMissing       the path names nothing
    │   │   └── NothingToShow   no dataset that can be pictured is below it
    │   ├── LinkUnresolved      a link that had to be followed and could not be
    │   ├── SourceRefused       a source of a virtual dataset that may not or cannot be read
    │   ├── KindMismatch        another kind of entity was needed
    │   ├── AttributeMissing    no attribute of that name
    │   ├── TypeUnsupported     an HDF5 type that has no NumPy equivalent
    │   ├── FilterMissing       a filter that is not installed
    │   ├── LibraryRefused      sound, as far as is known, but libhdf5 does not read it
    │   └── DamagedData         stored bytes that cannot be decoded
    ├── ServiceLimit            a bound of the settings was reached
    │   ├── AnswerTooLarge
    │   │   └── PageTooLarge    JSON that a browser would show as a page
    │   ├── ChunkTooLarge       what has to be in memory at once to read any of it
    │   ├── TooManyPaths        /paths of more than it may list
    │   ├── Overloaded
    │   │   └── DescriptorsExhausted    no file descriptor is left
    │   └── ReadTimeout

`HiveError` is one of them too; its tree is drawn in `asgihive.errors`.

`NeedsThread` is none of them: work that raises it succeeds in a thread. `NeedsStore` is one.

Errors carry data in their attributes; `str()` renders the sentence that a client reads.
None of them knows HTTP: the table of statuses is `asgihive.service.gate`.
"""

import difflib
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence


class AsgihiveError(Exception):
    """The root of every error that asgihive raises on purpose."""


class NeedsThread(Exception):  # no error: the same work succeeds in a thread
    """Work that was tried on the event loop would block there, or its lane is taken."""


class NeedsStore(NeedsThread):
    """Work in a lane would wait for an object store: it is to be begun again after `ask`.

    Attributes:
        question: what is asked; equal for the same question.
        ask: asks it, on the event loop, so that the answer is in memory afterwards.
    """

    def __init__(self, question: Hashable, ask: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.question = question
        self.ask = ask


class BadParameter(AsgihiveError):
    """A parameter whose value cannot be used: which, what came, what is accepted."""

    def __init__(self, parameter: str, value: str | None, accepted: str) -> None:
        super().__init__(parameter, value, accepted)
        self.parameter = parameter
        self.value = value
        self.accepted = accepted
        self.problems: tuple[BadParameter, ...] = (self,)

    def __str__(self) -> str:
        if self.value is None:
            return f"Parameter `{self.parameter}` is required: {self.accepted}"
        return f"Parameter `{self.parameter}` is `{_shorten(self.value)}`: {self.accepted}"


class BadParameters(BadParameter):
    """Several parameters whose values cannot be used."""

    def __init__(self, problems: Sequence[BadParameter]) -> None:
        first = problems[0]
        super().__init__(first.parameter, first.value, first.accepted)
        self.args = (problems,)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


class BadSelection(BadParameter):
    """A hyperslab selection that cannot be parsed or does not fit the dataset's shape."""

    def __init__(self, value: str, accepted: str) -> None:
        super().__init__("selection", value, accepted)
        self.args = (value, accepted)


class FormatMismatch(BadParameter):
    """A format or dtype that exists but cannot hold these values."""


class UnknownParameter(BadParameter):
    """A parameter that no route has, with a name that resembles one of this route's."""

    def __init__(self, parameter: str, meant: str) -> None:
        super().__init__(parameter, None, f"did you mean `{meant}`?")
        self.args = (parameter, meant)
        self.meant = meant

    def __str__(self) -> str:
        return f"Parameter `{_shorten(self.parameter)}` is unknown: did you mean `{self.meant}`?"


class ExtraMissing(AsgihiveError):
    """What is asked for needs a package that is not installed on the server."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what = what
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.what} needs the package {self.package}, which is not installed on the server: "
            f"pip install 'asgihive[{self.extra}]'"
        )


class FileError(AsgihiveError):
    """Something about one file; `file` is its name as the client knows it."""

    def __init__(self, file: str, detail: str = "") -> None:
        super().__init__(file, detail)
        self.file = file
        self.detail = detail

    def _sentence(self, text: str) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{text}: {_shorten(self.file)}{detail}"


class FileMissing(FileError):
    """No such regular file inside the served directory."""

    def __str__(self) -> str:
        return self._sentence("File not found")


class FileOutside(FileMissing):
    """The name leads out of the served directory; whether there is a file was not looked at."""


class FileForbidden(FileError):
    """The operating system refuses to let the process read the file."""

    def __str__(self) -> str:
        return self._sentence("Permission denied")


class FileUnreadable(FileError):
    """Not an HDF5 file, or too damaged for libhdf5."""

    def __str__(self) -> str:
        return f"{_shorten(self.file)} is not a readable HDF5 file" + (
            f": {self.detail}" if self.detail else ""
        )


class FileBeingWritten(FileError):
    """A program has the file open for writing, in a way that lets no other program read it."""

    def __str__(self) -> str:
        return (
            f"{_shorten(self.file)} is being written: it can be read once its writer closes it, "
            "or at any time if its writer uses SWMR (`libver='latest'` and `swmr_mode = True`)"
        )


class FileChanged(FileError):
    """The file changed while it was being read, so what was read is worth nothing."""

    def __str__(self) -> str:
        return self._sentence("The file changed while it was read, ask again")


class AnswerBroken(AsgihiveError):
    """A response that has begun cannot be completed; only with `isolation="process"`."""

    def __init__(self, reason: str, *, is_logged: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_logged = is_logged
        """Whether the process that read the file has logged it."""

    def __str__(self) -> str:
        return f"The answer has begun and cannot be completed: {self.reason}"


class RootUnreadable(AsgihiveError):
    """The served directory itself cannot be read now, so that no file of it can be told of.

    Args:
        reason: why not, for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The served directory cannot be read: {self.reason}"


class StoreError(AsgihiveError):
    """The object store that is served does not give what it has.

    Args:
        reason: why not, for people; without addresses and credentials.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreUnavailable(StoreError):
    """It does not answer, not in time, or only with errors of its own: ask again."""

    def __str__(self) -> str:
        return f"The object store does not answer: {self.reason}"


class StoreRefused(StoreError):
    """It refuses the credentials of the service: nothing that a client could mend."""

    def __str__(self) -> str:
        return f"The object store refuses this service: {self.reason}"


class StoreUnlisted(StoreError):
    """It does not tell which files it has; those whose names are known can be read."""

    def __str__(self) -> str:
        return f"The object store cannot be listed: {self.reason}"


class ReaderCrashed(FileError):
    """The process that read the file crashed, or hung: one of `isolation`, or of a cluster."""

    def __str__(self) -> str:
        named = _shorten(self.file) or "The request"
        return f"{named} crashed the reader" + (f": {self.detail}" if self.detail else "")


class EntityError(AsgihiveError):
    """Something about one entity; `path` is its path in `file`."""

    def __init__(self, file: str, path: str, detail: str = "") -> None:
        super().__init__(file, path, detail)
        self.file = file
        self.path = path
        self.detail = detail

    @property
    def _place(self) -> str:
        return f"{_shorten(self.path)} of {_shorten(self.file)}"

    def _because(self) -> str:
        return f": {self.detail}" if self.detail else ""


class EntityMissing(EntityError):
    """The path names nothing in the file."""

    def __str__(self) -> str:
        return f"{_shorten(self.path)} is not a valid path in {_shorten(self.file)}"


class NothingToShow(EntityMissing):
    """No path is given, or that of a group, and nothing is found below it that can be pictured."""

    def __init__(self, file: str, path: str, needed: str) -> None:
        super().__init__(file, path, needed)
        self.args = (file, path, needed)
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"Nothing to picture was found at {self._place}: no NeXus default, and no "
            f"{self.needed}; name one with `path`"
        )


class LinkUnresolved(EntityError):
    """A link that had to be followed is broken, cyclic, or leads outside.

    `target_missing` says that its target is simply not there.
    """

    def __init__(
        self, file: str, path: str, detail: str = "", *, target_missing: bool = False
    ) -> None:
        super().__init__(file, path, detail)
        self.target_missing = target_missing

    def __str__(self) -> str:
        return f"Cannot resolve the link at {self._place}{self._because()}"


class SourceRefused(EntityError):
    """A source of a virtual dataset is there or may be, and may not or cannot be read.

    `source` is its file and dataset as the virtual dataset names them.
    """

    def __init__(self, file: str, path: str, source: str, detail: str) -> None:
        super().__init__(file, path, detail)
        self.args = (file, path, source, detail)
        self.source = source

    def __str__(self) -> str:
        return (
            f"Cannot resolve the source {_shorten(self.source)} of the virtual dataset "
            f"{self._place}{self._because()}"
        )


class KindMismatch(EntityError):
    """The entity is of one kind and another was needed."""

    def __init__(self, file: str, path: str, kind: str, needed: str) -> None:
        super().__init__(file, path, f"{kind}, not {needed}")
        self.args = (file, path, kind, needed)
        self.kind = kind
        self.needed = needed

    def __str__(self) -> str:
        article = "an" if self.kind[0] in "aeiou" else "a"
        return f"{self._place} is {article} {self.kind}, but {self.needed} is needed here"


class AttributeMissing(EntityError):
    """The entity has no attribute of that name."""

    def __init__(self, file: str, path: str, attribute: str) -> None:
        super().__init__(file, path, attribute)
        self.attribute = attribute

    def __str__(self) -> str:
        return f"{self._place} has no attribute named {_shorten(self.attribute)!r}"


class TypeUnsupported(EntityError):
    """The values have an HDF5 type or layout that cannot be read into NumPy."""

    def __str__(self) -> str:
        return f"The values of {self._place} cannot be read{self._because()}"


class FilterMissing(EntityError):
    """A dataset was written through a filter that is not installed here."""

    def __init__(self, file: str, path: str, number: int, name: str) -> None:
        super().__init__(file, path, f"filter {number}")
        self.args = (file, path, number, name)
        self.number = number
        self.name = name

    def __str__(self) -> str:
        named = f" ({_shorten(self.name)})" if self.name else ""
        return (
            f"{self._place} is compressed with HDF5 filter {self.number}{named}, which is not "
            "installed on the server: `pip install 'asgihive[codecs]'` (the package hdf5plugin) "
            "brings the common ones"
        )


class LibraryRefused(EntityError):
    """libhdf5 does not read the values, though nothing says that they are damaged."""

    def __str__(self) -> str:
        return f"libhdf5 does not read the values of {self._place}{self._because()}"


class DamagedData(EntityError):
    """Stored bytes of a dataset or attribute cannot be read or decoded."""

    def __str__(self) -> str:
        return f"Damaged data in {self._place}{self._because()}"


class ServiceLimit(AsgihiveError):
    """A bound of `H5Settings` was reached."""


class AnswerTooLarge(ServiceLimit):
    """The answer is larger than `max_response_bytes`, or a document than `max_document_bytes`.

    Args:
        size: what it would hold at least, in bytes.
        limit: in bytes.
        advice: how to ask for less.
    """

    def __init__(
        self, size: int, limit: int, advice: str = "use `selection` to ask for a part"
    ) -> None:
        super().__init__(size, limit, advice)
        self.size = size
        self.limit = limit
        self.advice = advice

    def __str__(self) -> str:
        return f"The answer would hold {self.size} bytes, the limit is {self.limit}: {self.advice}"


class PageTooLarge(AnswerTooLarge):
    """JSON that a browser would show as a page, which stops it. Sizes in bytes."""

    def __str__(self) -> str:
        return (
            f"The answer would be about {self.size} bytes of JSON, and a browser is sent at most "
            f"{self.limit} as a page: use `max_points` to ask for a view, `selection` for a part, "
            "or `format=bin` for the bytes"
        )


class TooManyPaths(ServiceLimit):
    """There are more paths below a group, or longer ones, than one answer may have.

    Args:
        file: the file, as the client knows it.
        path: of the group.
        most: how many paths there may be.
        characters: how many characters all of them may have.
    """

    def __init__(self, file: str, path: str, most: int, characters: int) -> None:
        super().__init__(file, path, most, characters)
        self.file = file
        self.path = path
        self.most = most
        self.characters = characters

    def __str__(self) -> str:
        return (
            f"More than {self.most} paths, or {self.characters} characters of them, are below "
            f"{_shorten(self.path)} of {_shorten(self.file)}: ask for a group further below"
        )


class ChunkTooLarge(ServiceLimit):
    """A decoded chunk or an element of an entity is larger than `max_chunk_bytes`.

    Attributes:
        what: `chunk` or `element`.
        size: of it, in bytes.
        limit: the setting, in bytes.
    """

    def __init__(self, file: str, path: str, what: str, size: int, limit: int) -> None:
        super().__init__(file, path, what, size, limit)
        self.file = file
        self.path = path
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        if self.what == "chunk":
            way_out = "rewrite it with smaller chunks (`h5repack -l CHUNK=…`)"
        else:
            way_out = "download the file"
        return (
            f"Each {self.what} of {_shorten(self.path)} of {_shorten(self.file)} takes {self.size} "
            f"bytes of memory, the limit is {self.limit}: {way_out}, or let the server have a "
            "larger `max_chunk_bytes`"
        )


class Overloaded(ServiceLimit):
    """No room for another request; `what` names the bound that is reached."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"The server is busy ({self.what}), ask again later"


class DescriptorsExhausted(Overloaded):
    """The process, or the system, may open no further file (EMFILE, ENFILE)."""

    def __init__(self) -> None:
        super().__init__("it has as many files and connections open as it may")
        self.args = ()


class ReadTimeout(ServiceLimit):
    """Nothing was sent, or no further block, within `read_timeout_seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"The read took longer than {self.seconds:g} seconds"


def _shorten(text: str, most: int = 200) -> str:
    # Names come from requests and files: bounded, printable, and encodable as UTF-8.
    safe = text.encode("utf-8", "replace").decode("utf-8")
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"


class HiveError(AsgihiveError):
    """The root of what a hive raises on purpose."""


class ConfigurationError(HiveError, ValueError):
    """A field of the configuration: which, what came, what is accepted."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.field} {self.detail}"


class ComponentError(HiveError):
    """One component, by its key `container.name`, the file it is in, and what is wrong."""

    def __init__(self, component: str, file: str, detail: str) -> None:
        super().__init__(component, file, detail)
        self.component = component
        self.file = file
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.component} ({self.file}): {self.detail}"


class HookFailed(HiveError):
    """A step of start-up or shutdown that raised; its exception is the cause."""

    def __init__(self, owner: str, file: str, hook: str, error: BaseException) -> None:
        super().__init__(owner, file, hook, error)
        self.owner = owner
        self.file = file
        self.hook = hook
        self.error = error

    def __str__(self) -> str:
        said = f"{type(self.error).__name__}: {self.error}".rstrip(": ")
        return f"{self.owner} ({self.file}): {self.hook} failed with {said}"


class HookDenied(HiveError, AttributeError):
    """An attribute that is not there for this hook, or cannot be set."""


class HiveRunning(HiveError):
    """Something that is only possible before the hive starts."""


def join_names(names: Iterable[str], none: str = "nothing") -> str:
    """Return the names there are, for a message."""
    return ", ".join(sorted(names)) or none


# "ENDPOINT_PATHS" means "ENDPOINT_PACKAGE_PATHS" (0.78), "ENDPOINT_URL" something else (0.65).
_SURELY_MEANT = 0.75


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return what might have been meant, for the end of a message; empty where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def find_misspelt(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that was surely meant by `name`, None where there is none."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=_SURELY_MEANT)
    return near[0] if near else None

"""Which error answers with which HTTP status: the one table of it (RFC 9110, section 15)."""

from asgihive import errors
from asgihive.hdf5.open_file import Unsettled

STATUSES: dict[type[Exception], int] = {
    errors.BadParameter: 422,
    errors.FileMissing: 404,
    errors.FileForbidden: 403,
    errors.FileUnreadable: 422,
    errors.FileBeingWritten: 503,
    errors.FileChanged: 503,
    errors.RootUnreadable: 503,
    errors.ReaderCrashed: 500,
    errors.EntityMissing: 404,
    errors.LinkUnresolved: 404,
    errors.SourceRefused: 404,
    errors.KindMismatch: 422,
    errors.AttributeMissing: 404,
    errors.TypeUnsupported: 422,
    errors.FilterMissing: 501,
    errors.LibraryRefused: 501,
    errors.DamagedData: 500,
    errors.AnswerTooLarge: 413,
    errors.ChunkTooLarge: 413,
    errors.TooManyPaths: 413,
    errors.Overloaded: 503,
    errors.DescriptorsExhausted: 503,
    errors.ReadTimeout: 504,
    Unsettled: 503,
}

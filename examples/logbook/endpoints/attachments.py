"""`/api/attachments`: files that belong to the logbook."""

from typing import Annotated

from msgspec import Struct
from starlette.responses import FileResponse

from asgihive import Depends, Form, FromHive, HTTPException, Router, UploadFile

from ..cornerstones.auth import SECURITY, find_user
from ..cornerstones.problems import describe
from ..cornerstones.storage import Storage

requires = ("cornerstones.auth", "cornerstones.storage")
router = Router(dependencies=[Depends(find_user)])


class Attachment(Struct):
    """A file that was stored."""

    key: str
    size: int
    note: str


@router.post(
    "",
    status=201,
    security=SECURITY,
    responses=describe(401, 413, 415, 422),
    max_form_bytes=256 << 20,
)
async def attach(
    file: UploadFile, storage: FromHive[Storage], note: Annotated[str, Form()] = ""
) -> Attachment:
    """Store a file under the digest of its content."""
    key, size = await storage.save(file)
    return Attachment(key, size, note)


@router.get("/{key}", security=SECURITY, responses=describe(401, 404, 422))
async def download(key: str, storage: FromHive[Storage]) -> FileResponse:
    """A file that was stored."""
    path = await storage.find(key)
    if path is None:
        raise HTTPException(404, "There is no such attachment")
    return FileResponse(path)

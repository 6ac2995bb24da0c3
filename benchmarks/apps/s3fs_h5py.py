"""What one writes by hand to serve HDF5 files in S3: h5py over s3fs, each file kept open.

`BENCHMARK_S3FS_CACHE` names the cache of fsspec that each file gets, in place of s3fs's default.
"""

import os
from functools import cache
from typing import Any

import h5py
import s3fs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def create(url: str) -> Starlette:
    store = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    kind = os.environ.get("BENCHMARK_S3FS_CACHE")
    options: dict[str, Any] = {} if kind is None else {"cache_type": kind}

    @cache
    def open_file(name: str) -> h5py.File:
        return h5py.File(store.open(f"{url}/{name}", "rb", **options), "r")

    def read(request: Request) -> Response:
        query = request.query_params
        dataset = open_file(query["file"])[query["path"]]
        frame = dataset[int(query["selection"])]
        return Response(frame.tobytes(), media_type="application/octet-stream")

    return Starlette(routes=[Route("/data", read)])

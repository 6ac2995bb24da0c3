"""One S3 server a session, a bucket of its own a test, and services over it."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.object_stores.servers import Proxy, running_moto, running_proxy


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server."""
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed: it has the S3 server")
    with running_moto() as port:
        yield port


@pytest.fixture
def proxy(s3_port: int) -> Iterator[Proxy]:
    """A proxy before it."""
    with running_proxy(s3_port) as proxy:
        yield proxy


@pytest.fixture
def s3_environment(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that services find the server by, through the proxy."""
    name_server(monkeypatch, proxy.port)


def name_server(patch: pytest.MonkeyPatch, port: int) -> None:
    """Let services find an S3 server by the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "thekey",
        "AWS_SECRET_ACCESS_KEY": "thesecret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",  # as boto3 names it
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        patch.setenv(name, value)


class Bucket:
    """A bucket, written past the proxy."""

    def __init__(self, port: int) -> None:
        client = pytest.importorskip("boto3").client

        self.name = f"bucket-{uuid4().hex[:12]}"
        options: dict[str, Any] = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "region_name": "us-east-1",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
        }
        self.client: Any = client("s3", **options)
        self.client.create_bucket(Bucket=self.name)

    @property
    def url(self) -> str:
        """Of the served prefix."""
        return f"s3://{self.name}/served"

    def put(self, key: str, body: bytes, *, prefix: str = "served/") -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=prefix + key, Body=body)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.name, Key=f"served/{key}")


@pytest.fixture
def bucket(s3_port: int, s3_environment: None) -> Bucket:
    """An empty bucket."""
    return Bucket(s3_port)


MakeApp = Callable[..., H5App]


@pytest.fixture
def make_app(bucket: Bucket) -> MakeApp:
    """Makes services over the bucket, with settings."""

    def make(**settings: Any) -> H5App:
        return H5App(bucket.url, H5Settings(**settings))

    return make

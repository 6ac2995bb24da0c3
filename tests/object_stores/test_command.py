"""`asgihive serve s3://…`, over its own socket, as people run it."""

import httpx
import numpy as np
import pytest

from asgihive.cli import main
from tests.cli.processes import running
from tests.object_stores.conftest import Bucket
from tests.object_stores.test_reading import make_file


@pytest.mark.slow
def test_a_bucket_is_served_by_the_command(bucket: Bucket) -> None:
    values = np.arange(12.0).reshape(3, 4)
    bucket.put("scans/a b.h5", make_file(values=values))
    with running("serve", bucket.url, "--port", "0") as server:
        base = server.url.rstrip("/")
        query = {"file": "scans/a b.h5", "path": "/values", "format": "bin"}
        answer = httpx.get(f"{base}/data", params=query)
        assert answer.content == values.tobytes()
        listed = httpx.get(f"{base}/files", params={"dir": "scans"}).json()
        assert [each["name"] for each in listed["entries"]] == ["a b.h5"]
        assert httpx.get(f"{base}/health").status_code == 200
        code, output = server.press_control_c()
    assert code == 0
    assert "thesecret" not in output


@pytest.mark.slow
def test_workers_read_a_bucket_each_by_itself(bucket: Bucket) -> None:
    values = np.arange(12.0)
    bucket.put("x.h5", make_file(values=values))
    options = ("--port", "0", "--workers", "2", "--store-identity-seconds", "0")
    with running("serve", bucket.url, *options) as server:
        base = server.url.rstrip("/")
        query = {"file": "x.h5", "path": "/values", "format": "bin"}
        for new in (values, values[::-1]):
            bucket.put("x.h5", make_file(values=new))
            # A connection each, so that both are asked.
            answers = {httpx.get(f"{base}/data", params=query).content for _ in range(16)}
            assert answers == {new.tobytes()}
        code, _ = server.press_control_c()
    assert code == 0


def test_reader_processes_are_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "s3://bucket/prefix", "--isolation", "process"])
    assert ended.value.code == 2
    assert 'isolation="process" reads directories alone' in capsys.readouterr().err

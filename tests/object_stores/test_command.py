"""`asgihive serve s3://…`, over its own socket, as people run it."""

import httpx
import numpy as np
import pytest

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

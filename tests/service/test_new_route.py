"""A route is added as CONTRIBUTING.md says: by a row, a function, and its name."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py

ROOT = Path(__file__).parents[2]

ASKED = """
    import json, sys
    import anyio, httpx
    from asgihive import H5App

    async def ask():
        transport = httpx.ASGITransport(H5App(sys.argv[1]))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for query in ("file=x.h5&path=/group", "fil=x.h5", "file=x.h5&path=/no"):
                answer = await client.get(f"/names?{query}")
                print(json.dumps([answer.status_code, answer.json()]))
            print(json.dumps("/names" in (await client.get("/openapi.json")).json()["paths"]))

    anyio.run(ask)
"""


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text()
    assert content.count(before) == 1, before
    path.write_text(content.replace(before, text + before))


def test_it_is_answered_documented_and_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("group").attrs.update({"b": 1, "a": "text"})
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a route")[2]
    blocks = re.findall(r" *```python\n(.*?) *```", section, re.DOTALL)[:3]
    row, function, name = (textwrap.dedent(each) for each in blocks)
    code = tmp_path / "code"
    shutil.copytree(
        ROOT / "asgihive", code / "asgihive", ignore=shutil.ignore_patterns("__pycache__")
    )
    parameters, routes = (
        code / "asgihive" / "service" / f"{each}.py" for each in ("parameters", "routes")
    )
    insert(parameters, '    "meta": (', row)
    insert(routes, "_DOCUMENTS: ", f"{function}\n\n")
    insert(routes, '    "meta": _', name)
    command = [sys.executable, "-c", textwrap.dedent(ASKED), str(tmp_path)]
    done = subprocess.run(
        command, cwd=code, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found, misspelt, absent, is_documented = map(json.loads, done.stdout.splitlines())
    assert found == [200, ["a", "b"]]
    assert misspelt[0] == 422
    assert "did you mean `file`" in misspelt[1]["message"]
    assert absent[0] == 404
    assert is_documented is True

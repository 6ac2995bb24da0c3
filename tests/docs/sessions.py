"""Runs the commands of a page as somebody would who types them in."""

import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.cli.processes import PATIENCE, running
from tests.docs.page import Command

PLACE = "/srv/observatory"
"""Where the pages say that their files are."""

# Of Starlette's TestClient, which works with httpx all the same.
_OTHER_CLIENT = "ignore:Using `httpx` with"


def run_session(commands: list[Command], folder: Path) -> list[Command]:
    """The same commands, with what is printed in `folder`, which is the current one.

    `uvicorn` serves on a free port until the end of the session, and `curl` asks it.
    """
    done = []
    with ExitStack() as stack:
        url = ""
        for command in commands:
            program, *arguments = shlex.split(command.line)
            output = ""
            if program == "uvicorn":
                # The folder is where Python begins to search, as with the command itself.
                options = ("--port", "0", "--app-dir", str(folder))
                server = running(*arguments, *options, module="uvicorn")
                url = stack.enter_context(server).url
            elif program == "curl":
                output = _curl(arguments, url)
            else:
                output = _printed(program, arguments).replace(str(folder), PLACE)
            done.append(Command(command.line, output))
    return done


def _printed(program: str, arguments: list[str]) -> str:
    module = {"python": [], "asgihive": ["-m", "asgihive"]}[program]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", _OTHER_CLIENT, *module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Without what readline, which pytest imports, has put into the process's own: COLUMNS.
        env=dict(os.environ),
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout


def _curl(arguments: list[str], url: str) -> str:
    """What the terminal shows, a line break at the end included."""
    headers: dict[str, str] = {}
    content = None
    given = iter(arguments)
    for each in given:
        if each == "--json":
            content = next(given)
            headers["content-type"] = "application/json"
        elif each == "-H":
            name, _, value = next(given).partition(": ")
            headers[name] = value
        elif each != "-s":
            asked = httpx.URL(each)
    assert (asked.host, asked.port) == ("127.0.0.1", 8000)
    with httpx.Client(base_url=url, trust_env=False) as client:
        method = "GET" if content is None else "POST"
        target = asked.raw_path.decode()
        text = client.request(method, target, content=content, headers=headers).text
    return text.removesuffix("\n") + "\n"

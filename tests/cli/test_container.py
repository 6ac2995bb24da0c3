"""The recipe examples/deployment/Containerfile: by its commands, and by an engine where one is."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.cli.processes import PATIENCE, running
from tests.cli.site import EXAMPLES, read

ROOT = EXAMPLES.parents[1]

BUILD_SECONDS = 900.0
"""For packages of npm and of Python to be downloaded."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of the recipe, in the stage that it belongs to."""

    stage: str
    word: str
    text: str


def read_steps() -> Iterator[Step]:
    stage = ""
    recipe = re.sub(r"^#.*\n", "", read("Containerfile"), flags=re.MULTILINE)
    for line in recipe.replace("\\\n", "").splitlines():
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            stage = text.partition(" AS ")[2]
        elif word:
            yield Step(stage, word, text.strip())


def copy_clone(target: Path) -> None:
    """Copy what is in the repository, without what is built, as in a fresh clone."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no clone: git does not tell what is in it")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def test_every_stage_copies_what_another_one_makes() -> None:
    stages: list[str] = []
    for step in read_steps():
        if step.stage not in stages:
            stages.append(step.stage)
        if step.word == "COPY" and (found := re.match(r"--from=(\S+) ", step.text)):
            assert found[1] in stages[:-1]
    assert stages == ["page", "build", ""]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_its_commands_make_a_service_with_a_page(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage is a folder, in which the paths of the recipe begin."""
    clone = tmp_path / "clone"
    copy_clone(clone)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    environment.pop("VIRTUAL_ENV", None)
    stages = {step.stage: tmp_path / (step.stage or "image") for step in read_steps()}

    for step in read_steps():
        root = stages[step.stage]
        root.mkdir(exist_ok=True)
        if step.word == "COPY":
            found = re.fullmatch(r"(?:--from=(\S+) )?(\S+) (\S+)", step.text)
            assert found is not None
            source = (stages[found[1]] if found[1] else clone) / found[2].lstrip("/")
            shutil.copytree(source, root / found[3][1:], symlinks=True, dirs_exist_ok=True)
        elif step.word == "WORKDIR":
            workdir = root / step.text[1:]
        elif step.word == "RUN":
            command = re.sub(r"/(source|opt)\b", rf"{root}\g<0>", step.text)
            folder = workdir if step.stage == "page" else root
            done = subprocess.run(
                ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
                timeout=BUILD_SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

    # An environment of Python does not move: it is asked where it was made.
    made = stages["build"] / "opt" / "asgihive" / "bin"
    assert not (made / "pip").exists()
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # the package that was installed, not this clone's
    arguments = ("serve", str(directory), "--port", "0")
    with running(*arguments, python=str(made / "python")) as server:
        ask_for_the_page(server.url)


def ask_for_the_page(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
        page = client.get("/view/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        (script,) = re.findall(r'src="\./(assets/[^"]+\.js)"', page.text)
        assert client.get(f"/view/{script}").status_code == 200
        assert client.get("/metrics").status_code == 200


def find_engine() -> str | None:
    """Return a container engine that answers."""
    for name in filter(shutil.which, ("podman", "docker")):
        try:
            done = subprocess.run(
                [name, "info"], capture_output=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return name
    return None


@pytest.mark.slow
def test_an_engine_builds_and_runs_it(tmp_path: Path, directory: Path) -> None:
    engine = find_engine()
    if engine is None:
        pytest.skip("there is no container engine here: neither podman nor docker answers")

    def run(*arguments: str, seconds: float = PATIENCE) -> str:
        done = subprocess.run(
            [engine, *arguments], capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    copy_clone(tmp_path / "clone")
    recipe = str(EXAMPLES / "Containerfile")
    image = run("build", "-q", "-f", recipe, str(tmp_path / "clone"), seconds=BUILD_SECONDS)
    directory.chmod(0o755)
    strict = ("--read-only", "--tmpfs", "/tmp", "--cap-drop=all")
    options = (*strict, "-v", f"{directory}:/data:ro", "-p", "127.0.0.1::8000")
    container = run("run", "--detach", "--rm", *options, image)
    try:
        address = run("port", container, "8000/tcp")
        client = httpx.Client(transport=httpx.HTTPTransport(retries=10))
        with client:
            assert client.get(f"http://{address}/health").status_code == 200
        ask_for_the_page(f"http://{address}")
    finally:
        run("stop", container)

"""`asgihive viewer build`, and the page in distributions; npm is a script, but in the last test."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from asgihive import cli
from asgihive.cli import viewer
from asgihive.viewer.building import LAST_LINES
from tests.cli.processes import PATIENCE

ROOT = Path(__file__).parents[2]

# Installs what the lock file has, and builds a page of one file.
NPM = """\
#!/bin/sh
echo "npm $*" >> "$NPM_LOG"
if [ "$1" = ci ]; then
    mkdir -p node_modules/react
    echo '{}' > node_modules/react/package.json
    touch -d tomorrow node_modules/.package-lock.json
else
    mkdir -p ../asgihive/viewer/dist/assets
    echo '<script src="./assets/x.js"></script>' > ../asgihive/viewer/dist/index.html
    echo 'x' > ../asgihive/viewer/dist/assets/x.js
fi
"""
FAILING = """\
#!/bin/sh
i=0
while [ $i -lt 50 ]; do i=$((i + 1)); echo "line $i"; done
echo 'npm error code ENOTFOUND' >&2
exit 7
"""


class Machine:
    """A clone on a machine that has these programs, and hardly any other."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.programs = folder / "clone", folder / "programs"
        self.log = folder / "npm.log"
        self.programs.mkdir()
        (self.root / "viewer").mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / "viewer" / name, self.root / "viewer")
        for name in ("sh", "mkdir", "touch"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        patch.setattr(viewer, "_ROOT", self.root)
        patch.setenv("PATH", str(self.programs))
        patch.setenv("NPM_LOG", str(self.log))
        self.add("npm", NPM)
        self.add("node", "#!/bin/sh\necho v20.19.0\n")

    def add(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def build(*options: str) -> int:
    return cli.main(["viewer", "build", *options])


def failed(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        build()
    assert ended.value.code == 1
    text: str = capsys.readouterr().err
    return text


def test_it_is_built(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert build() == 0
    dist = machine.root / "asgihive" / "viewer" / "dist"
    assert (dist / "index.html").is_file()
    assert machine.asked == ["npm ci --no-progress", "npm run build"]
    assert capsys.readouterr().out.splitlines() == [
        "Installing what the page is made of …",
        "Building the page …",
        f"The page is built: {dist}",
    ]
    assert build() == 0  # with the packages that are there
    assert machine.asked[2:] == ["npm run build"]
    later = (machine.root / "viewer" / "node_modules" / ".package-lock.json").stat().st_mtime + 9
    os.utime(machine.root / "viewer" / "package-lock.json", (later, later))
    assert build() == 0
    assert machine.asked[3:] == ["npm ci --no-progress", "npm run build"]


@pytest.mark.parametrize("name", ["npm", "node"])
def test_without_npm(machine: Machine, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.programs / name).unlink()
    line = failed(capsys)
    assert "there is no npm: install Node.js 20.19 or later" in line
    assert line.count("\n") == 1
    assert build("--if-possible") == 0
    assert "There will be no page in the browser: there is no npm" in capsys.readouterr().out


@pytest.mark.parametrize("said", ["v20.18.3", "v18.20.4", "nonsense", ""])
def test_an_old_node(machine: Machine, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add("node", f"#!/bin/sh\necho {said}\n")
    line = failed(capsys)
    assert "Node.js 20.19 or later is needed" in line
    assert (said or "no known version") in line
    assert machine.asked == []


@pytest.mark.parametrize("said", ["v20.19.0", "v22.0.0", "v100.1.2"])
def test_a_new_node(machine: Machine, said: str) -> None:
    machine.add("node", f"#!/bin/sh\necho {said}\n")
    assert build() == 0


def test_without_sources(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.root / "viewer" / "package.json").unlink()
    assert f"its sources are not in {machine.root / 'viewer'}: build it in a clone" in failed(
        capsys
    )
    dist = machine.root / "asgihive" / "viewer" / "dist"
    dist.mkdir(parents=True)
    (dist / "index.html").write_text("page")
    assert build() == 0
    assert "already" in capsys.readouterr().out


def test_npm_fails(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add("npm", FAILING)
    first, *rest = failed(capsys).splitlines()
    assert first.endswith("the page cannot be built: `npm ci --no-progress` fails (exit code 7):")
    assert rest[-2:] == ["  line 50", "  npm error code ENOTFOUND"]
    assert len(rest) == LAST_LINES
    assert build("--if-possible") == 0
    assert "ENOTFOUND" in capsys.readouterr().out


def test_npm_builds_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add("npm", "#!/bin/sh\nexit 0\n")
    assert "npm has built no" in failed(capsys)


@pytest.fixture
def clone(machine: Machine) -> Path:
    """What is in the repository, without what is built."""
    git = shutil.which("git", path=os.defpath) or "git"
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=False, capture_output=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no clone: git does not tell what is in it")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if name.startswith(("tests/", "docs/", "benchmarks/")) or not (ROOT / name).is_file():
            continue
        target = machine.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return machine.root


def pack(clone: Path, target: str, **environment: str) -> list[str]:
    """The names in a distribution that hatchling builds."""
    out = clone.parent / "out"
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=clone, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    if target == "sdist":
        with tarfile.open(made) as archive:
            archive.extractall(clone.parent / "unpacked", filter="data")
            names = [each.partition("/")[2] for each in archive.getnames()]
    else:
        with zipfile.ZipFile(made) as wheel:
            names = wheel.namelist()
    made.unlink()
    return names


PAGE = "asgihive/viewer/dist/index.html"


@pytest.mark.slow
def test_the_page_is_in_the_distributions(clone: Path, machine: Machine) -> None:
    names = pack(clone, "sdist")
    assert {PAGE, "asgihive/viewer/dist/assets/x.js", "hatch_build.py"} <= set(names)
    assert {"viewer/package.json", "viewer/src/main.tsx"} <= set(names)
    assert not [each for each in names if "node_modules" in each]
    assert machine.asked == ["npm ci --no-progress", "npm run build"]
    # What pip makes of it needs no npm.
    (unpacked,) = (clone.parent / "unpacked").iterdir()
    (machine.programs / "npm").unlink()
    names = pack(unpacked, "wheel")
    assert {PAGE, "asgihive/viewer/dist/assets/x.js"} <= set(names)
    assert not [each for each in names if each.startswith(("viewer/", "hatch_build"))]


@pytest.mark.slow
def test_a_wheel_without_the_page(clone: Path, machine: Machine) -> None:
    assert PAGE not in pack(clone, "wheel", ASGIHIVE_NO_VIEWER="1")
    assert machine.asked == []
    machine.add("npm", FAILING)  # which is no failure of the wheel
    assert PAGE not in pack(clone, "wheel")
    machine.add("npm", NPM)
    assert PAGE in pack(clone, "wheel")
    (clone / PAGE).write_text("the one that is there")
    before = machine.asked
    assert PAGE in pack(clone, "wheel")
    assert machine.asked == before


@pytest.mark.slow
def test_an_editable_build_builds_no_page(clone: Path, machine: Machine) -> None:
    script = textwrap.dedent("""\
        import sys
        from hatchling.build import build_editable
        print(build_editable(sys.argv[1]))
        """)
    out = clone.parent / "out"
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", script, str(out)], cwd=clone, check=True, timeout=PATIENCE
    )
    assert machine.asked == []


@pytest.mark.slow
def test_npm_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its packages are there: nothing is downloaded."""
    if shutil.which("npm") is None or not (ROOT / "viewer" / "node_modules").is_dir():
        pytest.skip("npm or the packages of the page are not here: run `asgihive viewer build`")
    root = tmp_path / "clone"
    ignored = shutil.ignore_patterns("node_modules")
    shutil.copytree(ROOT / "viewer", root / "viewer", ignore=ignored)
    (root / "viewer" / "node_modules").symlink_to(ROOT / "viewer" / "node_modules")
    os.utime(root / "viewer" / "package-lock.json", (0, 0))
    monkeypatch.setattr(viewer, "_ROOT", root)
    assert build() == 0
    index = (root / PAGE).read_text()
    assert json.loads((root / "viewer" / "package.json").read_text())["name"] == "asgihive-viewer"
    assert 'src="./assets/' in index

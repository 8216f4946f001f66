"""``requirements/install.py``: what is missing is one line, and the user's torch stays."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
Version = namedtuple("Version", "major minor micro releaselevel serial")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pip:
    """Stands for pip and for the packages of an environment."""

    def __init__(self, **versions: str) -> None:
        self.versions = versions
        self.calls: list[tuple[str, ...]] = []
        self.fails: set[str] = set()

    def __call__(self, *arguments: str, waiting: object = None) -> int:
        self.calls.append(arguments)
        if self.fails & set(arguments):
            return 1
        name, _, version = arguments[-1].partition("==")
        if arguments[0] == "uninstall":
            self.versions.pop(name, None)
        else:
            self.versions[name] = version.replace("*", "0")
        return 0


@pytest.fixture
def environment(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An environment that is there already, with nothing in it."""
    environment = install.Environment(tmp_path / "venv")
    environment.folder.mkdir()
    environment.log.write_text("", encoding="utf-8")
    environment.pip = Pip()
    monkeypatch.setattr(install, "_version", lambda python, name: environment.pip.versions.get(name))
    monkeypatch.setattr(install.sys, "platform", "linux")
    monkeypatch.setattr(install.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("TORCH_CPU_INDEX", raising=False)
    return environment


@pytest.fixture(autouse=True)
def _room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 GB, whatever this machine has."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**11, 0, 10**11))


def refused(call, *arguments) -> str:
    """The one line of a refusal."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(*arguments)
    assert type(caught.value).__name__ == "Stop"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("minor", [9, 15])
def test_other_pythons_are_refused_with_one_that_is_there(install, minor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", Version(3, minor, 1, "final", 0))
    monkeypatch.setattr(install.platform, "python_version", lambda: f"3.{minor}.1")
    monkeypatch.setattr(shutil, "which", lambda name: name)  # pyenv puts names there that do not run
    monkeypatch.setattr(install, "_asked", lambda python, code: "1" if str(python) == "python3.12" else None)
    assert refused(install.check_python) == (
        f"install: Python 3.{minor}.1 is not 3.10 to 3.14: give make PYTHON=python3.12"
    )


def test_old_pythons_can_read_what_refuses_them() -> None:
    source = (ROOT / "requirements" / "install.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source, "Python 3.6 does not know it"


def test_the_pythons_of_debian_ubuntu_and_the_newest_are_taken(install, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in range(10, 15):
        monkeypatch.setattr(sys, "version_info", Version(3, minor, 0, "final", 0))
        install.check_python()


def test_a_python_without_venv_names_the_package(install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(sys, "version_info", Version(3, 13, 5, "final", 0))
    text = refused(install.check_python)
    assert "has no module ensurepip: on Debian and Ubuntu: apt install python3.13-venv" in text


def test_a_full_disk_is_known_before_anything_is_written(install, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**11, 10**11 - 10**9, 10**9))
    environment = install.Environment(tmp_path / "not" / "yet")
    assert f"1.0 GB are free at {tmp_path}, and 3 GB" in refused(environment.create)
    assert not list(tmp_path.iterdir())


def test_the_cpu_build_is_taken_where_there_is_no_torch(install, environment) -> None:
    install.install_torch(environment)
    (call,) = environment.pip.calls
    assert call[-1] == f"torch=={install._pinned('torch')}+cpu"
    assert "--extra-index-url" in call
    assert f"torch=={install._pinned('torch')}+cpu" in environment.constraints.read_text(encoding="utf-8").splitlines()


def test_without_the_cpu_index_the_package_index_is_enough(install, environment, capsys, monkeypatch) -> None:
    """It has the build for CUDA, which is large: a disk that is too small for it is named first."""
    pinned = install._pinned("torch")
    environment.pip.fails = {f"torch=={pinned}+cpu"}
    install.install_torch(environment)
    assert environment.pip.calls[-1] == ("install", f"torch=={pinned}")
    assert environment.pip.versions["torch"] == pinned
    assert "not available from https://download.pytorch.org/whl/cpu" in capsys.readouterr().out
    environment.pip.versions.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**11, 10**11 - 5 * 10**9, 5 * 10**9))
    assert "5.0 GB are free" in refused(install.install_torch, environment)


@pytest.mark.parametrize("version", ["2.6.0", "2.8.0+cu128", "2.13.0+cu130", "2.14.0a0+git1234"])
def test_a_torch_of_the_user_stays(install, environment, version) -> None:
    environment.pip.versions["torch"] = version
    install.install_torch(environment)
    assert environment.pip.calls == []
    lines = environment.constraints.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("torch==")] == [f"torch=={version}"]
    environment.import_error = lambda module: None
    install.install_torchvision(environment)
    (call,) = environment.pip.calls
    minor = int(version.split(".")[1])
    assert call[-1] == f"torchvision==0.{minor + 15}.*"
    assert "--no-deps" in call
    pinned = [line for line in lines if line.startswith("torchvision==")]
    assert bool(pinned) == version.startswith("2.13."), "a pin for another torch would fit nothing"
    build = version.partition("+")[2]
    assert not build or f"https://download.pytorch.org/whl/{build}" in call


@pytest.mark.parametrize("version", ["2.5.1", "2.6.0a0+ecf3bae40a.nv25.01"])
def test_an_old_torch_of_the_user_is_refused(install, environment, version) -> None:
    environment.pip.versions["torch"] = version
    text = refused(install.install_torch, environment)
    assert f"has torch {version}, and 2.6 or later is needed: update it, or give a Python without torch" in text
    shutil.rmtree(environment.folder)
    assert text.replace(str(environment.python), sys.executable) == refused(environment.create)
    assert not environment.folder.exists(), "one of that Python would hide the torch of the next"


def test_a_torchvision_of_another_build_is_named_in_one_line(install, environment, capsys) -> None:
    environment.pip.versions |= {"torch": "2.13.0+cpu", "torchvision": "0.28.0+cu130"}
    environment.import_error = lambda module: "RuntimeError: operator torchvision::nms does not exist"
    install.install_torchvision(environment)
    assert environment.pip.calls == [], "it may be the user's"
    (line,) = capsys.readouterr().out.splitlines()
    assert "torchvision 0.28.0 was built for another torch than 2.13.0+cpu" in line
    assert line.endswith("torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cpu")
    environment.import_error = lambda module: None
    install.install_torchvision(environment)
    assert capsys.readouterr().out == ""


def test_headless_opencv_takes_the_place_of_one_that_cannot_be_loaded(install, environment) -> None:
    fault = "ImportError: libxcb.so.1: cannot open shared object file: No such file or directory"
    environment.import_error = lambda module: None if "opencv-python-headless" in environment.pip.versions else fault
    install.replace_opencv(environment)
    assert environment.pip.calls[0] == ("uninstall", "-y", "opencv-python")
    assert "--force-reinstall" in environment.pip.calls[1]
    environment.pip.calls.clear()
    install.replace_opencv(environment)
    assert environment.pip.calls == []
    environment.import_error = lambda module: "SyntaxError: invalid syntax"
    assert "SyntaxError" in refused(install.replace_opencv, environment)


def test_a_failed_step_ends_with_its_log(install, environment) -> None:
    environment.log.write_text("".join(f"line {i}\n" for i in range(9)), encoding="utf-8")
    environment.pip.fails = {"no-such-package"}
    with pytest.raises(install.Stop, match=r"^line 4\nline 5\nline 6\nline 7\nline 8$") as caught:
        environment.step("something", "install", "no-such-package")
    assert caught.value.status == 1


def test_an_environment_without_a_python_that_runs_is_refused(install, tmp_path: Path) -> None:
    environment = install.Environment(tmp_path / "venv")
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to(tmp_path / "removed")
    assert refused(environment.create).endswith("remove the folder")
    environment.python.unlink()
    environment.python.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    environment.python.chmod(0o755)
    assert refused(environment.create).endswith("remove the folder")


def test_what_cannot_be_written_is_one_line(install, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["install.py", "--venv", str(tmp_path / "file" / "venv")])
    assert install.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("install: ")
    assert str(tmp_path / "file") in line


@pytest.mark.thorough
def test_an_interrupted_installation_is_completed(install, tmp_path: Path) -> None:
    """A pip that was half written, and what a killed pip had downloaded."""
    environment = install.Environment(tmp_path / "venv")
    environment.create()
    site = environment._packages()
    assert site.parent.is_relative_to(tmp_path)
    shutil.rmtree(site / "pip" / "_vendor" / "rich")
    (environment.temporary / "pip-unpack").mkdir()
    assert environment.pip("install", "--no-index", "pip") != 0
    environment.create()
    assert environment.pip("install", "--no-index", "pip") == 0
    assert not any(environment.temporary.iterdir())
    environment.finish()
    assert not environment.temporary.exists()
    assert environment.is_current()


def test_another_state_or_place_is_installed_again(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = tmp_path / "constraints.txt"
    shutil.copy(install.CONSTRAINTS, constraints)
    monkeypatch.setattr(install, "CONSTRAINTS", constraints)
    environment = install.Environment(tmp_path / "venv")
    environment.folder.mkdir()
    assert not environment.is_current()
    environment.finish()
    assert environment.is_current()
    constraints.touch()
    assert environment.is_current(), "its content is the same"
    with constraints.open("a", encoding="utf-8") as file:
        file.write("another==1\n")
    assert not environment.is_current()
    environment.finish()
    environment.folder.rename(tmp_path / "moved")
    assert not install.Environment(tmp_path / "moved").is_current()


@pytest.mark.thorough
@pytest.mark.parametrize("first", [True, False], ids=["new", "there without torch"])
def test_the_torch_of_the_python_that_installs_is_seen(install, tmp_path: Path, first, monkeypatch, capsys) -> None:
    """Whichever Python it is of, in a folder with a name of its own; an editable one lies elsewhere."""
    packages = tmp_path / "José's packages"
    (packages / "torch-2.9.1+cu128.dist-info").mkdir(parents=True)
    (packages / "torch-2.9.1+cu128.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1+cu128\n", encoding="utf-8"
    )
    (packages / "__editable__.torch.pth").write_text(str(tmp_path / "source"), encoding="utf-8")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "torch.py").write_text("", encoding="utf-8")
    environment = install.Environment(tmp_path / "venv")
    if not first:
        subprocess.run([sys.executable, "-m", "venv", str(environment.folder)], check=True)
    asked = install._asked
    answers = {"version('torch')": "2.9.1+cu128", "distribution('torch').locate_file('')": str(packages)}

    def asked_of(python: Path, expression: str) -> str | None:
        return answers[expression] if python == Path(sys.executable) else asked(python, expression)

    monkeypatch.setattr(install, "_asked", asked_of)
    environment.create()
    assert "Using torch 2.9.1+cu128 of" in capsys.readouterr().out
    assert install._version(environment.python, "torch") == "2.9.1+cu128"
    assert environment.import_error("torch") is None
    assert "torch==2.9.1+cu128" in environment.constraints.read_text(encoding="utf-8").splitlines()


@pytest.mark.needs(shutil.which("make"), reason="make")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_says_what_is_missing_and_makes_nothing(target, tmp_path: Path) -> None:
    """No Python of that name; and one without ``ensurepip``, as Debian's without python3-venv."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError(name='ensurepip')", encoding="utf-8")
    for python, message in (("python9", "make: python9 not found"), (sys.executable, "has no module ensurepip")):
        done = subprocess.run(
            ["make", target, f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert message in done.stderr + done.stdout
        assert not (tmp_path / "venv").exists()

"""Install a clone of the repository with everything that its demo and tests need: ``make install``.

    python3 requirements/install.py [--venv .venv]

It needs Python 3.10 to 3.14 with its ``venv`` module and a package index, but no make, compiler or other package.
Versions are those of ``constraints.txt``, with two exceptions:

1. A torch that is already in the environment, or in the Python that runs this script, is kept, and torchvision is
   chosen to match it. Otherwise the CPU build is installed.
2. opencv-python needs desktop libraries. If they are missing, opencv-python-headless replaces it.

Missing prerequisites are reported within a second, in one line and with exit status 2. A failed step ends with the last
lines of its log and exit status 1; the next call continues from there. The syntax is that of Python 3.6, so that older
Pythons, too, are refused in one line.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
OLDEST, NEWEST = (3, 10), (3, 14)  # Python
OLDEST_TORCH = (2, 6)
GIGABYTE = 10**9
DISK = {"CPU": 3, "CUDA": 9}  # gigabytes needed to install with this build of torch, including downloads
ELSEWHERE = ("PIP_CONSTRAINT", "PIP_DRY_RUN", "PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER", "PYTHONHOME")
TORCH_BUILDS = "https://download.pytorch.org/whl"


class Stop(Exception):
    """The installation cannot continue; the message is one line, or the end of a log."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the package, its demo and its tests into an environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default: .venv)")
    environment = Environment(parser.parse_args().venv)
    try:
        if environment.is_current():
            return 0
        check_python()
        environment.create()
        print(f"Installing into {environment.folder} (log: {environment.log})")
        install_torch(environment)
        environment.step("mmms_plugin and what it needs", "install", "-e", f"{ROOT}[openmmlab,test]")
        replace_opencv(environment)
        install_torchvision(environment)
        fault = environment.import_error("torch")
        if fault is not None:
            raise Stop(f"install: torch cannot be imported in {environment.folder}: {fault}", status=1)
        environment.finish()
    except Stop as stop:
        sys.stdout.flush()
        print(stop, file=sys.stderr)
        return stop.status
    except OSError as error:
        sys.stdout.flush()
        print(f"install: {error.filename or environment.folder}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        print("install: interrupted; the next call continues from here", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Raise Stop unless this Python can create an environment for the package."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        others = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        present = next((name for name in others if shutil.which(name) and _asked(Path(name), "1")), None)
        remedy = f"give make PYTHON={present}" if present else "install one, and give it with make PYTHON=python3.13"
        remedy = remedy if os.name != "nt" else "call py -3.13 requirements/install.py"
        raise Stop(f"install: Python {platform.python_version()} is not 3.10 to 3.14: {remedy}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        package = "python{}.{}-venv".format(*sys.version_info)
        remedy = f"on Debian and Ubuntu: apt install {package}, or python3-venv"
        raise Stop(f"install: {sys.executable} has no module {error.name}: {remedy}") from error


def check_torch(version: str, python: object) -> None:
    """Raise Stop if the torch of a Python is too old."""
    oldest = ".".join(map(str, OLDEST_TORCH))
    if _release(version) < OLDEST_TORCH or re.match(rf"{oldest}\.0(a|b|rc|\.?dev)", version):
        raise Stop(
            f"install: {python} has torch {version}, and {oldest} or later is needed: update it, or give a Python "
            "without torch"
        )


class Environment:
    """A virtual environment, and pip in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.log = folder / "install.log"
        self.constraints = folder / "constraints.txt"
        self.temporary = folder / "tmp"  # for pip; the next call removes what a killed pip leaves there
        self.stamp = folder / ".installed"
        self._started = time.monotonic()

    def is_current(self) -> bool:
        """Whether this clone is installed here in its present state, and neither has been moved since."""
        try:
            return self.stamp.read_text(encoding="utf-8") == self._state()
        except (OSError, ValueError):
            return False

    def finish(self) -> None:
        """Note that the installation is complete."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.stamp.write_text(self._state(), encoding="utf-8")
        print(f"Installed in {time.monotonic() - self._started:.0f} s")

    def _state(self) -> str:
        digest = hashlib.sha256()
        for file in (Path(__file__), CONSTRAINTS, ROOT / "setup.py", ROOT / "pyproject.toml"):
            digest.update(file.read_bytes())
        return f"{ROOT}\n{self.folder.resolve()}\n{digest.hexdigest()}\n"

    def create(self) -> None:
        """Create the environment, or complete one whose creation was interrupted.

        Raises:
            Stop: there is too little disk space, or the folder holds something else.
        """
        new = not os.path.lexists(self.python)
        torch = None if not new and _version(self.python, "torch") else _version(Path(sys.executable), "torch")
        if torch is not None:
            check_torch(torch, sys.executable)
        if new:
            self.check_disk("CPU")
        elif not self._works("-c", f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"):
            raise Stop(f"install: {self.folder} has no Python that runs, or not 3.10 to 3.14: remove the folder")
        # An installed pip answers this without the network; a half-written one fails
        if new or not self._works("-m", "pip", "install", "-q", "--no-index", "pip"):
            self._make(new)
        if torch is not None:
            print(f"Using torch {torch} of {sys.executable}")
            packages = _asked(Path(sys.executable), "distribution('torch').locate_file('')")
            line = f"import site; site.addsitedir({packages!a})"  # also follows the .pth files there
            (self._packages() / "torch_of_python.pth").write_text(line, encoding="ascii")
        self.log.write_text("", encoding="utf-8")
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        self.constrain_torch()

    def _make(self, new: bool) -> None:
        if new:
            done = _run(Path(sys.executable), "-m", "venv", str(self.folder))
        else:
            for remains in self._packages().glob("pip*"):  # ensurepip would not replace them
                shutil.rmtree(remains, ignore_errors=True)
            done = _run(self.python, "-m", "ensurepip", "--default-pip")
        if done.returncode:
            text = (done.stderr or done.stdout).decode(errors="replace").strip().rpartition("\n")[2]
            raise Stop(f"install: {self.folder} cannot be made: {text}")

    def _packages(self) -> Path:
        return Path(_asked(self.python, "sysconfig.get_path('purelib')") or "no-such-folder")

    def constrain_torch(self) -> Optional[str]:
        """Write the constraints of this environment, in which pip may not change its torch; return torch's version."""
        version = _version(self.python, "torch")
        lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
        if version is not None:
            check_torch(version, self.python)
            own = f"torch=={version}"
            lines = [own if line.startswith("torch==") else line for line in lines]
            if _release(version) != _release(_pinned("torch")):
                lines = [line for line in lines if not line.startswith("torchvision==")]
        self.constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return version

    def check_disk(self, build: str) -> None:
        """Raise Stop if the environment, with this build of torch and the downloads, does not fit on its disk."""
        place = next(path for path in (self.folder, *self.folder.resolve().parents) if path.exists())
        free = shutil.disk_usage(place).free / GIGABYTE
        if free < DISK[build]:
            what = f"{DISK[build]} GB, with the {build} build of torch"
            raise Stop(f"install: {free:.1f} GB are free at {place}, and {what}, are needed: make room")

    def step(self, what: str, *arguments: str, otherwise: Optional[str] = None) -> bool:
        """Print what is installed, run pip with these arguments, and print the seconds that it took.

        Args:
            what: description for the terminal.
            arguments: of pip.
            otherwise: printed if pip fails, for steps that the installation can do without.

        Returns:
            Whether pip succeeded.

        Raises:
            Stop: pip failed, and there is no ``otherwise``; the message is the end of the log.
        """
        started = time.monotonic()

        def seconds(before: str) -> str:
            return f"{before} ({time.monotonic() - started:.0f} s)"

        print(f"  {what}", end="", flush=True)
        status = self.pip(*arguments, waiting=lambda: print(seconds(f"\r  {what}"), end="", flush=True))
        if status == 0:
            print(seconds(f"\r  {what}" if sys.stdout.isatty() else ""), flush=True)
        else:
            print("" if otherwise is None else f": {otherwise}", flush=True)
            if otherwise is None:
                raise Stop(self._end_of_log(), status=1)
        return status == 0

    def pip(self, *arguments: str, waiting: Callable[[], None] = lambda: None) -> int:
        """Exit status of pip; what it prints goes to the log.

        Args:
            arguments: of pip.
            waiting: called every second on a terminal.
        """
        command = [str(self.python), "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
        if arguments[0] == "install":
            command += ["--no-user", "-c", str(self.constraints)]
        own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary.resolve()))
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**_environment(), **own})
        while True:
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                if sys.stdout.isatty():
                    waiting()
            except KeyboardInterrupt:  # pip also gets it from the terminal, and cleans up
                _end(process)
                raise

    def import_error(self, module: str) -> Optional[str]:
        """The last line of the error that ``import module`` raises, or None."""
        done = _run(self.python, "-c", f"import {module}")
        text = done.stderr.decode(errors="replace").strip()
        return (text.rpartition("\n")[2] or f"exit status {done.returncode}") if done.returncode else None

    def _works(self, *arguments: str) -> bool:
        try:
            return _run(self.python, *arguments).returncode == 0
        except OSError:
            return False

    def _end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        return "\n".join(lines) or "install: pip failed and its log is empty: is the disk full?"


def install_torch(environment: Environment) -> None:
    """Install the CPU build of torch, unless there is a torch; the package index's if that build is not available."""
    if environment.constrain_torch() is not None:
        return
    pinned = _pinned("torch")
    if sys.platform == "linux" and platform.machine() == "x86_64":  # elsewhere the package index has CPU builds
        index = os.environ.get("TORCH_CPU_INDEX", f"{TORCH_BUILDS}/cpu")
        arguments = ("install", "--no-deps", "--retries", "0", "--extra-index-url", index, f"torch=={pinned}+cpu")
        otherwise = f"not available from {index}; taking the package index's, which includes CUDA: a download of 3 GB"
        if not environment.step(f"torch {pinned}, CPU build", *arguments, otherwise=otherwise):
            environment.check_disk("CUDA")
    if environment.constrain_torch() is None:
        environment.step(f"torch {pinned}", "install", f"torch=={pinned}")
        environment.constrain_torch()


def install_torchvision(environment: Environment) -> None:
    """Install the torchvision that belongs to the installed torch, for mmpretrain; print a note if they do not match.

    pip must not choose: each torchvision requires one build of torch.
    """
    torch = _version(environment.python, "torch") or ""
    build = torch.partition("+")[2]
    index = os.environ.get("TORCH_CPU_INDEX", f"{TORCH_BUILDS}/cpu") if build == "cpu" else f"{TORCH_BUILDS}/{build}"
    if _version(environment.python, "torchvision") is None:
        release = f"torchvision==0.{_release(torch)[1] + 15}.*"  # 0.28 belongs to torch 2.13
        options = ["--retries", "0", "--extra-index-url", index] if build else []
        environment.step(f"torchvision for torch {torch}", "install", "--no-deps", *options, release)
    if environment.import_error("torchvision") is not None:
        version = (_version(environment.python, "torchvision") or "").partition("+")[0]
        remedy = f"pip install --no-deps --force-reinstall torchvision=={version} --index-url {index}"
        print(
            f"Note: torchvision {version} was built for another torch than {torch}: it can be imported after "
            "mmms_plugin, without its compiled operators. To use it without the plugin, install the build for "
            f"torch {torch}: {environment.python} -m {remedy}"
        )


def replace_opencv(environment: Environment) -> None:
    """Replace OpenCV by headless OpenCV if system libraries are missing.

    Raises:
        Stop: OpenCV cannot be imported for another reason.
    """
    fault = environment.import_error("cv2")
    lacking = re.search(r"(lib\S+): cannot open shared object", fault or "")
    if lacking is not None:
        environment.pip("uninstall", "-y", "opencv-python")
        headless = ("--no-deps", "--force-reinstall", "opencv-python-headless")  # both have the same files
        environment.step(f"opencv-python-headless, since {lacking[1]} is missing here", "install", *headless)
        fault = environment.import_error("cv2")
    if fault is not None:
        raise Stop(f"install: OpenCV cannot be imported in {environment.folder}: {fault}", status=1)


def _pinned(package: str) -> str:
    match = re.search(rf"^{package}==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise Stop(f"install: {CONSTRAINTS} does not pin {package}", status=1)
    return match[1]


def _release(version: str) -> Tuple[int, ...]:
    """``(2, 13)`` of '2.13.0+cpu'."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _version(python: Path, package: str) -> Optional[str]:
    """Version of a package that is installed for a Python; the package is not imported."""
    return _asked(python, f"version({package!r})")


def _asked(python: Path, expression: str) -> Optional[str]:
    """The value of an expression in another Python, or None if it fails."""
    imports = "import sys, sysconfig; from importlib.metadata import distribution, version"
    try:
        done = _run(python, "-c", f"{imports}; sys.stdout.buffer.write(str({expression}).encode())")
    except OSError:  # there is no such Python
        return None
    answer = done.stdout.decode()
    return answer if done.returncode == 0 and answer != "None" else None


def _run(python: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([str(python), *arguments], env=_environment(), **pipes)


def _environment() -> Dict[str, str]:
    """The environment variables, without those that would redirect pip or the environment's Python."""
    return {name: value for name, value in os.environ.items() if name not in ELSEWHERE}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Give a process ten seconds to end, then terminate it."""
    try:
        process.wait(10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())

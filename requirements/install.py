"""Install the package in a clone of the repository, with all that its demo and its tests need: ``make install``.

    python3 requirements/install.py [--venv .venv]

It needs Python 3.10 to 3.14 with its own ``venv`` module, and a package index; no make, no compiler, no other package.
Versions are those of ``constraints.txt``, with two exceptions:

1. A torch that is already in the environment, or in the Python that runs this script, stays, and torchvision is taken
   to match it. Otherwise the CPU build is installed.
2. opencv-python needs libraries of a desktop. Where they are missing, opencv-python-headless takes its place.

What is missing to begin with is reported within a second, in one line and with exit status 2. A failed step ends with
the last lines of its log and exit status 1; a second call goes on from there. The syntax is that of Python 3.6, so that
older Pythons are refused in one line, too.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
OLDEST, NEWEST = (3, 10), (3, 14)  # Python
OLDEST_TORCH = (2, 6)
GIGABYTE = 10**9
DISK = {"CPU": 3, "CUDA": 9}  # gigabytes to install with that build of torch, downloads included
TORCH_BUILDS = "https://download.pytorch.org/whl"


class Stop(Exception):
    """The installation cannot go on; the message is one line, or the end of a log."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the package, its demo and its tests into a new environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default: .venv)")
    venv = parser.parse_args().venv
    try:
        check_python()
        environment = Environment(venv)
        environment.create()
        print(f"Installing into {venv} (log: {environment.log})")
        install_torch(environment)
        environment.step("mmms_plugin and what it needs", "install", "-e", f"{ROOT}[test]")
        replace_opencv(environment)
        install_torchvision(environment)
        fault = environment.import_error("torch")
        if fault is not None:
            raise Stop(f"install: torch cannot be imported in {venv}: {fault}", status=1)
        (venv / ".installed").touch()
    except Stop as stop:
        sys.stdout.flush()
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("install: interrupted; call it again to go on", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Raise Stop unless this Python can make an environment that the package runs in."""
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


class Environment:
    """A virtual environment, and pip in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.log = folder / "install.log"
        self.constraints = folder / "constraints.txt"
        self._started = time.monotonic()

    def create(self) -> None:
        """Make it unless it is there; one that was interrupted is completed.

        Raises:
            Stop: there is too little disk, or something else in its place.
        """
        packages = None
        if not self.python.exists():
            self.check_disk("CPU")
            packages = _asked(Path(sys.executable), "distribution('torch').locate_file('')")
        elif not self._works(f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"):
            raise Stop(f"install: {self.folder} has no Python that runs, or not 3.10 to 3.14: remove the folder")
        if not self.python.exists() or not self._works("import pip"):
            shared = packages is not None and sys.prefix == sys.base_prefix
            options = ["--system-site-packages"] if shared else []
            made = subprocess.run([sys.executable, "-m", "venv", *options, str(self.folder)], capture_output=True)
            if made.returncode:
                text = (made.stderr or made.stdout).decode(errors="replace").strip()
                raise Stop(f"install: {self.folder} cannot be made: {text}", status=1)
        if packages is not None:
            print(f"Using the torch of {sys.executable}")
            if not shared:  # Python is of an environment itself, whose packages no option of venv includes
                own = Path(_asked(self.python, "sysconfig.get_path('purelib')") or "")
                (own / "torch_of_python.pth").write_text(packages, encoding="utf-8")
        self.log.write_text("", encoding="utf-8")
        self.constrain_torch()

    def constrain_torch(self) -> Optional[str]:
        """Write the constraints of this environment, in which pip may not change its torch; return torch's version."""
        version = _version(self.python, "torch")
        lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
        if version is not None:
            if _release(version) < OLDEST_TORCH:
                oldest = ".".join(map(str, OLDEST_TORCH))
                raise Stop(f"install: torch {version} is there, and {oldest} or later is needed: update it first")
            own = f"torch=={version}"
            lines = [own if line.startswith("torch==") else line for line in lines]
            if _release(version) != _release(_pinned("torch")):
                lines = [line for line in lines if not line.startswith("torchvision==")]
        self.constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return version

    def check_disk(self, build: str) -> None:
        """Raise Stop where the environment, with this build of torch, or its downloads do not fit on the disk."""
        existing = next(path for path in (self.folder, *self.folder.resolve().parents) if path.exists())
        for place in (existing, Path(tempfile.gettempdir())):
            free = shutil.disk_usage(place).free / GIGABYTE
            if free < DISK[build]:
                remedy = "make room" if place == existing else "make room, or set TMPDIR to another folder"
                what = f"{DISK[build]} GB, with the {build} build of torch"
                raise Stop(f"install: {free:.1f} GB are free at {place}, and {what}, are needed: {remedy}")

    def step(self, what: str, *arguments: str, otherwise: Optional[str] = None) -> bool:
        """Print what is installed, run pip with these arguments, and print the seconds since the start.

        Args:
            what: for the terminal.
            arguments: of pip.
            otherwise: printed where pip fails, if the installation can go on without this step.

        Returns:
            Whether pip succeeded.

        Raises:
            Stop: it failed, and there is no ``otherwise``; the message is the end of the log.
        """
        print(f"  {what}", end="", flush=True)
        status = self.pip(*arguments, waiting=lambda: self._print_seconds(f"\r  {what}"))
        if status == 0:
            self._print_seconds(f"\r  {what}" if sys.stdout.isatty() else "", end="\n")
        else:
            print("" if otherwise is None else f": {otherwise}")
            if otherwise is None:
                raise Stop(self._end_of_log(), status=1)
        return status == 0

    def _print_seconds(self, before: str, end: str = "") -> None:
        print(f"{before}  ({time.monotonic() - self._started:.0f} s)", end=end, flush=True)

    def pip(self, *arguments: str, waiting: Callable[[], None] = lambda: None) -> int:
        """Exit status of pip; what it prints goes to the log.

        Args:
            arguments: of pip.
            waiting: called every second on a terminal.
        """
        own = ["-q", "--disable-pip-version-check", *arguments]
        if arguments[0] == "install":
            own += ["-c", str(self.constraints)]
        command = [str(self.python), "-m", "pip", *own]
        with self.log.open("ab") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
            while True:
                try:
                    return process.wait(1)
                except subprocess.TimeoutExpired:
                    if sys.stdout.isatty():
                        waiting()
                except KeyboardInterrupt:
                    process.terminate()
                    raise

    def import_error(self, module: str) -> Optional[str]:
        """The last line of what goes wrong in ``import module``, or None."""
        done = subprocess.run([str(self.python), "-c", f"import {module}"], capture_output=True)
        text = done.stderr.decode(errors="replace").strip()
        return (text.rpartition("\n")[2] or f"exit status {done.returncode}") if done.returncode else None

    def _works(self, code: str) -> bool:
        try:
            return subprocess.run([str(self.python), "-c", code], capture_output=True).returncode == 0
        except OSError:
            return False

    def _end_of_log(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])


def install_torch(environment: Environment) -> None:
    """The CPU build of torch, unless there is a torch; the package index's where that build cannot be had."""
    if environment.constrain_torch() is not None:
        return
    pinned = _pinned("torch")
    if sys.platform == "linux" and platform.machine() == "x86_64":  # elsewhere the package index has CPU builds
        index = os.environ.get("TORCH_CPU_INDEX", f"{TORCH_BUILDS}/cpu")
        arguments = ("install", "--no-deps", "--retries", "0", "--extra-index-url", index, f"torch=={pinned}+cpu")
        otherwise = f"cannot be had from {index}; the build of the package index, for CUDA, is several times larger"
        if not environment.step(f"torch {pinned}, CPU build", *arguments, otherwise=otherwise):
            environment.check_disk("CUDA")
    if environment.constrain_torch() is None:
        environment.step(f"torch {pinned}", "install", f"torch=={pinned}")
        environment.constrain_torch()


def install_torchvision(environment: Environment) -> None:
    """The torchvision that belongs to the installed torch, which mmpretrain imports; a line where they do not match.

    pip must not choose: each torchvision asks for one build of torch.
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
            "mmms_plugin, without its compiled operators. If you use it by itself, install the build that belongs to "
            f"torch: {environment.python} -m {remedy}"
        )


def replace_opencv(environment: Environment) -> None:
    """Put headless OpenCV in the place of the other one where that lacks libraries of the system.

    Raises:
        Stop: OpenCV cannot be imported for another reason.
    """
    fault = environment.import_error("cv2")
    if fault is not None and re.search(r"lib\S+: cannot open shared object", fault):
        environment.pip("uninstall", "-y", "opencv-python")
        headless = ("--no-deps", "--force-reinstall", "opencv-python-headless")  # both have the same files
        environment.step("opencv-python-headless: this system has no desktop", "install", *headless)
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
    """What a Python says of itself, or None if it cannot tell."""
    code = f"import sysconfig; from importlib.metadata import distribution, version; print({expression})"
    done = subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode().strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())

"""On Windows every module can be imported and the commands work; elsewhere text is UTF-8 whatever the locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from mmms_plugin import files, processes
from mmms_plugin.commands import compare_seeds, main
from mmms_plugin.compat.saving import _LaterRemovals
from mmms_plugin.config import files as config_files
from mmms_plugin.errors import UserError
from mmms_plugin.files import written_whole
from mmms_plugin.train import inputs

ROOT = Path(__file__).parents[1]
CONFIG = "demo/mask_rcnn_ps_r18_shapes"
TRAIN = f"train {CONFIG} --coco-dir shapes --work-dir run --batch-size 2 --image-size 64"
IN_PROCESS = "--cfg-options " + " ".join(
    f"{split}_dataloader.num_workers=0 {split}_dataloader.persistent_workers=False"
    for split in ("train", "val", "test")
)


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, check=False)


def test_from_data_to_a_report_with_what_windows_has(tmp_path: Path) -> None:
    """Two trainings, of which the first has spawned workers, and every file that is written twice."""
    size_ap = "size-ap --ann shapes/annotations/instances_val.json --pred predictions.json --out report"
    commands = [
        "make-shapes shapes --train 4 --val 2 --size 96 --format all",
        "check-data shapes",
        f"{TRAIN} --iters 1 --workers 1",
        f"{TRAIN} --iters 2 --resume {IN_PROCESS}",
        f"test {CONFIG} run/iter_2.pth --coco-dir shapes --out predictions.json --show-dir drawn {IN_PROCESS}",
        size_ap,
        size_ap,
        f"predict {CONFIG} run/iter_2.pth shapes/images --out found",
        "publish run/iter_2.pth released.pth",
    ]
    strict = ("-W", "ignore::EncodingWarning", "-W", "error::EncodingWarning:mmms_plugin")
    variables = dict(PYTHONWARNDEFAULTENCODING="1", PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    done = python(tmp_path, *strict, "-m", "tests.windows", *commands, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "report" / "report.html").is_file()
    assert json.loads((tmp_path / "found" / "predictions.json").read_text(encoding="utf-8"))["images"]
    assert list(tmp_path.glob("released-*.pth"))


def test_text_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    """Names come out as they went in where the system's encoding is ASCII, or Windows' own."""
    plain = dict(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    for start in (["-m", "mmms_plugin", "size-ap"], [str(ROOT / "tools" / "size_ap.py")]):
        done = python(tmp_path, *start, "--ann", "ž ≥ 猫.json", **plain)
        assert done.returncode == 2
        assert "ž ≥ 猫.json" in done.stderr.decode("utf-8")


class WindowsFolder(PureWindowsPath):
    """A folder with one file in a folder."""

    def is_dir(self) -> bool:
        return True

    def rglob(self, pattern: str) -> Iterator[PureWindowsPath]:
        yield self / "retinanet" / "r50.py"


def test_names_of_configs_have_slashes_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_files, "config_root", lambda: WindowsFolder("C:\\configs"))
    assert list(config_files.config_names()) == ["retinanet/r50"]
    monkeypatch.setattr(config_files, "Path", WindowsFolder)
    assert list(config_files.host_files("mmdet", "configs")) == ["retinanet/r50"]


def test_a_file_that_another_program_reads_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, refusals = os.replace, [PermissionError(13, "in use")] * 3

    def busy(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(os, "replace", busy)
    with written_whole(tmp_path / "a.txt") as file:
        file.write_text("new", encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    refusals += [PermissionError(13, "in use")] * 100
    with (
        pytest.raises(UserError, match=r"a\.txt: cannot be written \(in use\)"),
        written_whole(tmp_path / "a.txt") as file,
    ):
        file.write_text("newer", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


MEMORY = """
import os, pathlib, subprocess, sys
from mmms_plugin import processes
command = [sys.executable, "-c", "import time; held = b'1' * (300 * 2**20); time.sleep(2)"]
exact = processes.wait_and_measure(subprocess.Popen(command))
del os.wait4
process = subprocess.Popen(command)
polled, own = processes.wait_and_measure(process), processes.peak_memory()
processes.STATUS = pathlib.Path("missing")
by_usage = processes.peak_memory()
sys.modules["resource"] = None
print(exact, polled, process.returncode, own, by_usage, processes.peak_memory())
"""


def test_memory_of_a_process_is_its_own_without_posix(tmp_path: Path) -> None:
    """From a small process: Linux counts the memory of a parent until its child has started."""
    done = python(tmp_path, "-c", MEMORY)
    exact, polled, status, own, by_usage, own_polled = map(int, done.stdout.split())
    assert status == 0
    assert exact > 300 * 2**20
    assert abs(exact - polled) < 30 * 2**20
    assert 2**20 < own_polled <= own * 1.1
    assert own <= by_usage * 1.1


def test_command_lines_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.shell_words(r"--coco-dir 'a b' c\ d") == ["--coco-dir", "a b", "c d"]
    assert processes.shell_line(["a b", "c"]) == "'a b' c"
    monkeypatch.setattr(processes, "WINDOWS", True)
    assert processes.shell_words(r"--coco-dir C:\data\shapes 'a b'") == ["--coco-dir", r"C:\data\shapes", "a b"]
    assert processes.shell_line([r"run\iter_2.pth", "a b"]) == r'run\iter_2.pth "a b"'


def test_runs_of_a_config_at_the_root_of_a_drive_stay_in_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_seeds, "Path", PureWindowsPath)
    assert compare_seeds.folder_name("D:\\my.py") == "my"
    assert compare_seeds.folder_name("cifar10/resnext29_small") == "cifar10-resnext29_small"


def test_pictures_of_two_drives_get_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", refuse)
    found = {Path("c/cat.jpg"): Path("cat.jpg"), Path("d/cat.jpg"): Path("cat.jpg")}
    assert len(set(inputs._names(found))) == 2


def test_a_lock_that_a_killed_process_left_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process on another machine, which may or may not be alive."""
    monkeypatch.setattr(files, "LONGEST", 0.1)
    (tmp_path / files.LOCK).write_text("7\nanother-host\n", encoding="utf-8")
    with files.files_written_together(tmp_path) as folder:
        (folder / "a.txt").write_text("a", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_outdated_checkpoint_that_another_program_reads_stays(capsys: pytest.CaptureFixture[str]) -> None:
    removed = []

    def remove(path: str) -> None:
        if path == "busy.pth":
            raise PermissionError(13, "in use", path)
        removed.append(path)

    removals = _LaterRemovals(SimpleNamespace(remove=remove, rmtree=remove))
    for name in ("busy.pth", "free.pth", "current.pth"):
        removals.remove(name)
    removals.remove_all(spared={"current.pth"})
    assert removed == ["free.pth"]


def test_what_a_program_keeps_open_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """A picture of the last demo; the folder stays the demo's. Any other file that a command replaces."""
    for name in ("demo.json", "overlays.png", "metrics.json"):
        (tmp_path / name).touch()
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path.name == "overlays.png":
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    for _ in range(2):
        assert main(["demo", "--out", str(tmp_path)]) == 2
        assert "cannot be cleared" in capsys.readouterr().err
    monkeypatch.setattr("mmms_plugin.commands.demo.run", lambda *_: (tmp_path / "overlays.png").unlink())
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("overlays.png cannot be written (in use)\n")

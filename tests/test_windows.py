"""On Windows every module can be imported and the commands work; elsewhere text is UTF-8 whatever the locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest

from mmms_plugin import files
from mmms_plugin.engine import config_files, host_files
from mmms_plugin.errors import UserError
from mmms_plugin.files import written_whole

ROOT = Path(__file__).parents[1]
CONFIG = "demo/mask_rcnn_ps_r18_shapes"
TRAIN = f"train {CONFIG} --coco-dir shapes --work-dir run --batch-size 2 --image-size 64"
IN_PROCESS = "--cfg-options train_dataloader.num_workers=0 train_dataloader.persistent_workers=False"


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, check=False)


def test_from_data_to_a_report_with_what_windows_has(tmp_path: Path) -> None:
    """Two trainings, of which the first has spawned workers, and every file that is written twice."""
    size_ap = "size-ap --ann shapes/annotations/instances_val.json --pred predictions.json --out report"
    commands = [
        "make-shapes shapes --train 4 --val 2 --size 96 --format all",
        "check-data shapes",
        f"{TRAIN} --iters 1",
        f"{TRAIN} --iters 2 --resume {IN_PROCESS}",
        f"test {CONFIG} run/iter_2.pth --coco-dir shapes --out predictions.json --show-dir drawn",
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
    monkeypatch.setattr(host_files, "Path", WindowsFolder)
    assert list(host_files.host_files("mmdet", "configs")) == ["retinanet/r50"]


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
import os, subprocess, sys
from mmms_plugin import processes
command = [sys.executable, "-c", "import time; held = b'1' * (300 * 2**20); time.sleep(2)"]
exact = processes.wait_and_measure(subprocess.Popen(command))
del os.wait4
process = subprocess.Popen(command)
polled, own = processes.wait_and_measure(process), processes.peak_memory()
sys.modules["resource"] = None
print(exact, polled, process.returncode, own, processes.peak_memory())
"""


def test_memory_of_a_process_is_its_own_without_posix(tmp_path: Path) -> None:
    """From a small process: Linux counts the memory of a parent until its child has started."""
    done = python(tmp_path, "-c", MEMORY)
    exact, polled, status, own, own_polled = map(int, done.stdout.split())
    assert status == 0
    assert exact > 300 * 2**20
    assert abs(exact - polled) < 30 * 2**20
    assert 2**20 < own_polled <= own * 1.1

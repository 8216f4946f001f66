"""What keeps commands quick: mistakes are found before torch is imported, and no garbage is collected at exit."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError

MISTAKES = {
    "train nowhere.py": "config 'nowhere.py': no such file",
    "train CONFIG.txt": "config CONFIG.txt: the suffix is '.txt'",
    "train CONFIG --coco-dir nowhere": "--coco-dir nowhere: no such folder",
    "train CONFIG --val-ann nowhere.json": "--val-ann nowhere.json: no such file",
    "train CONFIG --img-dir there": "--img-dir: name the data too",
    "train CONFIG --pretrained nowhere.pth": "nowhere.pth: no such file; --pretrained none starts from random weights",
    "train CONFIG --resume nowhere.pth": "--resume nowhere.pth: no such file",
    "train CONFIG --epochs 0": "--epochs 0: must be",
    "test CONFIG nowhere.pth": "checkpoint nowhere.pth: no such file",
    "test CONFIG there": "checkpoint there: it is a directory",
    "predict CONFIG nowhere.pth there --out out": "checkpoint nowhere.pth: no such file",
    "predict nowhere.py CONFIG.pth there --out out": "config 'nowhere.py': no such file",
    "predict CONFIG CONFIG.pth there nowhere.png --out out": "nowhere.png: no such picture or folder",
    "early-exit CONFIG CONFIG.pth --thresholds nowhere.json --out out": "--thresholds nowhere.json: no such file",
    "early-exit CONFIG CONFIG.pth --thresholds there --out out": "--thresholds there: it is a directory, give a file",
    "flops nowhere": "config 'nowhere': no such file and no config of that name",
    "early-exit CONFIG nowhere --out out": "checkpoint nowhere: no such file",
    "stress-test CONFIG nowhere.pth --out out": "checkpoint nowhere.pth: no such file",
    "scale-policy CONFIG CONFIG.pth --out out": "give the pictures with --images DIR, --data DIR or --coco-dir DIR",
    "scale-policy CONFIG CONFIG.pth --images there --coco-dir there --out out": "give the pictures with --images DIR",
    "scale-policy CONFIG CONFIG.pth --images nowhere --out out": "--images nowhere: no such folder",
    "scale-policy CONFIG CONFIG.pth --images there --compare nowhere.pth --out out": "checkpoint nowhere.pth: no such",
    "advise --coco-dir nowhere": "--coco-dir nowhere: no such folder",
    "advise --coco-dir there --config nowhere.py": "config 'nowhere.py': no such file",
    "shapes there nowhere.py": "config 'nowhere.py': no such file",
    "shapes nowhere.pth": "checkpoint nowhere.pth: no such file",
    "convert nowhere.pth out.pth": "checkpoint nowhere.pth: no such file",
    "publish nowhere.pth out": "checkpoint nowhere.pth: no such file",
}
RUN = """
import contextlib, io, json, sys
from mmms_plugin.commands import main

results = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main(words.split())
    results.append((status, errors.getvalue(), sorted({"torch", "mmengine", "mmcv", "numpy"} & set(sys.modules))))
print(json.dumps(results))
"""


def test_mistakes_are_found_before_torch_or_a_host_is_imported(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("CONFIG.txt", "CONFIG.pth"):
        (tmp_path / name).touch()
    mistakes = {words.replace("CONFIG ", "mask_rcnn_ps_r50_fpn_1x "): message for words, message in MISTAKES.items()}
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps([*mistakes]), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for (words, message), (status, error, imported) in zip(mistakes.items(), json.loads(done.stdout), strict=True):
        assert (status, imported) == (2, []), (words, error)
        assert message in error, words
        assert error.count("\n") == 1, error
    assert {path.name for path in tmp_path.iterdir()} == {"there", "CONFIG.txt", "CONFIG.pth"}


class Screen(io.StringIO):
    """A terminal, or a pipe; both streams of a terminal are one."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def loaded(monkeypatch, out, error, fault=None):
    """Run a command that prints a line to each stream."""

    def run(options):
        shown.append(error.getvalue())
        if fault:
            raise fault
        print("first")
        print("second", file=sys.stderr)

    shown: list[str] = []
    monkeypatch.setattr("mmms_plugin.commands.flops.run", run)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        assert main(["flops", "PSResNet"]) == (2 if fault else 0)
    return shown[0]


def test_a_terminal_shows_a_line_until_the_command_prints(monkeypatch):
    screen = Screen(terminal=True)
    line = "mmms flops: loading ..."
    assert loaded(monkeypatch, screen, screen) == line
    assert screen.getvalue() == f"{line}\r{' ' * len(line)}\rfirst\nsecond\n"
    screen = Screen(terminal=True)
    loaded(monkeypatch, screen, screen, fault=UserError("x: is wrong"))
    assert screen.getvalue() == f"{line}\r{' ' * len(line)}\rmmms flops: error: x: is wrong\n"


def test_pipes_and_further_processes_show_none(monkeypatch):
    for terminals in ((True, False), (False, True), (False, False)):
        out, error = map(Screen, terminals)
        assert loaded(monkeypatch, out, error) == ""
        assert (out.getvalue(), error.getvalue()) == ("first\n", "second\n")
    monkeypatch.setenv("RANK", "1")
    screen = Screen(terminal=True)
    assert loaded(monkeypatch, screen, screen) == ""


def test_python_ends_without_collecting_garbage_but_runs_what_was_registered():
    code = """
import atexit, gc, sys
from mmms_plugin.commands import script

class Cycle:
    def __del__(self):
        print("collected", flush=True)

gc.disable()
cycle = Cycle()
cycle.itself = cycle
del cycle
atexit.register(lambda: print("registered"))
sys.exit(script("--version"))
"""
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["registered"]

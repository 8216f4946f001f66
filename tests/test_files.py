"""Files are whole or absent, folders are checked and left as they were; texts and command lines for a terminal."""

from __future__ import annotations

import errno
import io
import os
import platform
import stat
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from mmms_plugin import files, processes
from mmms_plugin.errors import UserError, first_line, one_line, printable, shown
from mmms_plugin.files import (
    check_folder,
    files_written_together,
    flush_folder,
    make_folder,
    umask,
    write_text,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(writing: AbstractContextManager[Path], name: str = "") -> None:
    with writing as place:
        (place / name).write_text("half", encoding="utf-8")
        raise KeyError


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / f"{'x' * 60}.json"
    for text in ("old", "new"):
        with written_whole(path) as temporary:
            assert temporary.parent.parent == path.parent, "where renaming needs no copy"
            assert temporary.name == path.name
            temporary.write_text(text, encoding="utf-8")
            assert path.exists() == (text == "new"), "the old one stays until then"
        assert path.read_text(encoding="utf-8") == text
        assert names(path.parent) == [path.name]


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError):
        interrupted(written_whole(path))
    for error, reason in ((OSError(28, "No space left"), "No space left"), (OSError("bad luck"), "bad luck")):
        with pytest.raises(UserError) as caught, written_whole(path):
            raise error
        assert str(caught.value) == f"output {path}: cannot be written ({reason})"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^output .*below/b.txt: cannot be written \(Not a directory"):
        write_text(tmp_path / "file" / "below" / "b.txt", "x")
    assert names(tmp_path) == ["a.txt", "file"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_file_may_get_its_name_from_its_content(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.txt", lambda file: tmp_path / file.read_text(encoding="utf-8")) as temporary:
        temporary.write_text("b.txt", encoding="utf-8")
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.needs(os.name != "nt", reason="modes of files are POSIX's")
def test_files_get_the_permissions_that_the_user_s_programs_give(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            assert umask() == mask
            assert umask() == mask, "reading it does not change it"
            path = write_text(tmp_path / f"{mask}.txt", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_content_and_names_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's before its renaming, then the folder's; no descriptor stays open."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_text(tmp_path / "a.txt", "x")
    assert events == ["file", "rename", "folder"]
    events.clear()
    with files_written_together(tmp_path) as folder:
        (folder / "a.txt").touch()
        (folder / "b.txt").touch()
    assert events == ["rename", "rename", "folder"]
    if Path("/proc/self/fd").is_dir():
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            write_text(tmp_path / "a.txt", "x")
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_cannot_be_opened_is_not_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows; other errors are raised."""

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(FileNotFoundError):
        flush_folder(tmp_path / "gone")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        flush_folder(tmp_path)


def test_text_is_the_same_on_every_system(tmp_path: Path) -> None:
    path = write_text(str(tmp_path / "a.txt"), "猫\nb\ud800\n")
    assert path == tmp_path / "a.txt"
    assert path.read_bytes() == "猫\nb\\ud800\n".encode()


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_text("old", encoding="utf-8")
    (tmp_path / "out/mine.txt").touch()
    with pytest.raises(KeyError):
        interrupted(files_written_together(tmp_path / "out"), "a.txt")
    assert names(tmp_path / "out") == ["a.txt", "mine.txt"]
    assert (tmp_path / "out/a.txt").read_text(encoding="utf-8") == "old"
    with files_written_together(tmp_path / "out") as folder:
        assert folder.parent.parent == tmp_path / "out"
        assert not names(folder)
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("new", encoding="utf-8")
        assert names(tmp_path / "out") == [folder.parent.name, "a.txt", "mine.txt"]
    assert names(tmp_path / "out") == ["a.txt", "b.txt", "mine.txt"]
    assert (tmp_path / "out/a.txt").read_text(encoding="utf-8") == "new"


def test_a_new_folder_does_not_outlive_a_failure(tmp_path: Path) -> None:
    for error, message in (
        (OSError(28, "No space left"), r"^--report .*down: cannot be written \(No space left\)$"),
        (OSError("bad luck"), r"^--report .*down: cannot be written \(bad luck\)$"),
        (KeyboardInterrupt(), ""),
    ):
        kind = UserError if message else KeyboardInterrupt
        with pytest.raises(kind, match=message), files_written_together(tmp_path / "deep/down", "--report"):
            raise error
        assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"^--out .*: this folder cannot be made \("),
        files_written_together(tmp_path / "file" / "a"),
    ):
        pass
    with files_written_together(tmp_path / "deep/down") as folder:
        (folder / "a.txt").touch()
    assert names(tmp_path / "deep/down") == ["a.txt"]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from mmms_plugin.datasets.shapes import write_shapes
from mmms_plugin.files import files_written_together, written_whole

def half(place):
    (place / "half.txt" if place.is_dir() else place).write_text("half", encoding="utf-8")
    print("writing", flush=True)
    time.sleep(60)

folder, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "data set":
    write_shapes(folder / "new", 9, 1, 64, progress=lambda done, total: half(next(folder.glob(".*/new"))))
with files_written_together(folder) if kind == "folder" else written_whole(folder / "model.pth") as place:
    half(place)
"""


@pytest.mark.slow  # three processes import the package
def test_what_killed_processes_were_writing_goes_at_the_next_run(tmp_path: Path) -> None:
    """But not what a living one writes, and nothing that only looks like it."""
    (tmp_path / ".mmms-mine").mkdir()
    (tmp_path / ".mmms-abcdefgh").mkdir()
    (tmp_path / ".mmms-abcdefgh/kept.txt").touch()
    (tmp_path / ".mmms-abcdefg1").write_text("a file", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / files.OWNER).touch()
    if os.name != "nt":
        (tmp_path / ".mmms-abcdefg2").symlink_to("elsewhere")
    before = names(tmp_path)
    runs = [
        subprocess.Popen([sys.executable, "-c", KILLED, tmp_path, kind], stdout=subprocess.PIPE, text=True)
        for kind in ("folder", "file", "data set")
    ]
    try:
        assert [run.stdout.readline() for run in runs if run.stdout] == ["writing\n"] * 3
        files.clear_unfinished(tmp_path)
        assert len(names(tmp_path)) == len(before) + 3
        for left, run in zip((2, 1, 0), runs, strict=True):
            run.kill()
            run.wait()
            files._cleared.clear()  # as in another process
            check_folder(tmp_path)
            assert len(names(tmp_path)) == len(before) + left
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert names(tmp_path) == before
    assert names(tmp_path / "elsewhere") == [files.OWNER]


def test_a_folder_that_another_process_takes_for_a_killed_ones_is_given_up(tmp_path: Path, monkeypatch) -> None:
    """It can be removed in the instant before it is locked."""
    made: list[Path] = []
    mkdtemp = files.mkdtemp

    def removed_at_once(**options: object) -> str:
        made.append(Path(mkdtemp(**options)))
        if len(made) == 2:
            held.append(FileLock(made[-1] / files.OWNER, timeout=0))
            held[-1].acquire()
        return str(made[-1])

    held: list[FileLock] = []
    monkeypatch.setattr(files, "mkdtemp", removed_at_once)
    acquire = FileLock.acquire

    def acquire_and_lose(lock: FileLock) -> object:
        taken = acquire(lock)
        if len(made) == 1:
            Path(lock.lock_file).unlink()
        return taken

    monkeypatch.setattr(FileLock, "acquire", acquire_and_lose)
    with files.unfinished(tmp_path) as place:
        assert place == made[2]
        assert place.is_dir()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
@pytest.mark.needs(os.name != "nt", reason="flock is POSIX's")
def test_without_locks_files_are_written_and_nothing_is_cleared(code: int, tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / ".mmms-abcdefgh").mkdir()
    (tmp_path / ".mmms-abcdefgh" / files.OWNER).touch()
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with written_whole(tmp_path / "a.txt") as temporary:
        assert names(temporary.parent) == ["a.txt"], "no lock that others could find free"
    assert names(tmp_path) == [".mmms-abcdefgh", "a.txt"]


def test_two_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds the lock while it moves its files, and waits for the other's; without locks they still move."""
    locks: list[bool] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *ends: (locks.append((tmp_path / files.LOCK).exists()), replace(*ends)))
    with files_written_together(tmp_path) as folder:
        (folder / "a.txt").touch()
        assert not (tmp_path / files.LOCK).exists()
    assert locks == [True]
    assert names(tmp_path) == ["a.txt"]

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "no locks here")

    monkeypatch.setattr("filelock.SoftFileLock.acquire", refuse)
    with files_written_together(tmp_path) as folder:
        (folder / "b.txt").touch()
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_a_target_that_is_busy_is_an_error_at_once_but_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def busy(*ends: Path) -> None:
        calls.append(ends)
        raise PermissionError(13, "in use")

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "WINDOWS", False)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "b")
    assert 3 <= len(calls) - 1 <= 6, "tried 20 times a second"


def test_folders_are_made_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_folder(str(tmp_path / "a/b")) == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()
    assert make_folder(tmp_path / "a/b") == tmp_path / "a/b"
    check_folder(tmp_path / "a/c/d")
    assert names(tmp_path / "a") == ["b"]
    check_folder(tmp_path / "a")
    (tmp_path / "file").touch()
    for function in (make_folder, check_folder):
        with pytest.raises(UserError, match=r"^--work-dir .*file: this folder cannot be made \(File exists\)$"):
            function(tmp_path / "file", "--work-dir")

    def refuse(**options: object) -> None:
        assert options["dir"] == tmp_path / "a"
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "NamedTemporaryFile", refuse)
    for function in (make_folder, check_folder):
        with pytest.raises(UserError, match=r"^--out .*a: nothing can be written there \(Permission denied\)$"):
            function(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"), ("žluť 猫", "žluť 猫"), ("a\x1b[31m\n\t", r"a\x1b[31m\n\t"), ("\ud800", r"\ud800"),
        ("a\u3000b\u00a0c", "a b c"), ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"), ("\u202e", r"\u202e"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"), ("x" * 300, "x" * 300),
        ("x" * 150 + "y" + "z" * 150, "x" * 150 + " ... " + "z" * 150),
    ],
)  # fmt: skip
def test_texts_from_outside_are_fit_for_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_have_an_end() -> None:
    assert one_line("x" * 3000) == "x" * 3000
    assert one_line("x" * 1500 + "y" + "z" * 1500) == "x" * 1500 + " ... " + "z" * 1500
    assert one_line("a\nb") == r"a\nb"
    assert printable("abcdefg", 4) == "ab ... fg"


VALUES = {
    "2299": "'2299'",
    "it's": '"it\'s"',
    "'\"": "''\"'",
    "a\nb\x1b[31m": r"'a\nb\x1b[31m'",
    "猫": "'猫'",
    "x" * 70: f"'{'x' * 30} ... {'x' * 30}'",
    2299: "2299",
    1.5: "1.5",
    None: "None",
    True: "True",
    (1, "a", "\x1b"): r"(1, 'a', '\x1b')",
    (0,) * 70: f"({'0, ' * 9}0, ... , {'0, ' * 8}...)",
    (("b", 1), ("a", 2)): "(('b', 1), ('a', 2))",
    10**100: "100000000000000000...0000000000000000000",
    16**6000: "an integer of thousands of digits",
}


@pytest.mark.parametrize(("value", "text"), VALUES.items(), ids=range(len(VALUES)))
def test_values_out_of_files_are_short_and_texts_in_quotes(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("message", "line"), [("a\nb", "a"), ("\n \n  b \nc", "b "), ("", "KeyError"), (" \n", "KeyError")]
)
def test_the_first_line_of_an_error(message: str, line: str) -> None:
    class Error(KeyError):
        def __str__(self) -> str:
            return message

    Error.__name__ = "KeyError"
    assert first_line(Error()) == line


def test_command_lines_are_taken_apart_as_a_shell_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.shell_words("a#b 'c d' \"e;f\" g|h # i") == ["a#b", "c d", "e;f", "g|h", "#", "i"]
    monkeypatch.setattr(processes, "WINDOWS", True)
    assert processes.shell_words(r"C:\a\b 'c d'") == [r"C:\a\b", "c d"]


class Popen:
    """A process that ends at the third look, with a child that has gone at the second."""

    def __init__(self) -> None:
        self.pid, self.returncode, self.looks = os.getpid(), None, 0

    def wait(self, seconds: float) -> None:
        assert 0.05 <= seconds <= 1
        self.looks += 1
        if self.looks == 3:
            self.returncode = 7
            return
        raise subprocess.TimeoutExpired("x", seconds)


def test_memory_is_the_most_that_any_look_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process or one below it, where the system keeps no peak of a process that has ended."""
    held = iter([(100, 900), (700, psutil.NoSuchProcess(1)), (300, 200)])

    class Process:
        def __init__(self, pid: int, memory: object = None) -> None:
            assert pid == os.getpid()
            self.own, self.below = next(held) if memory is None else (memory, None)

        def children(self, recursive: bool) -> list[object]:
            assert recursive
            return [Process(os.getpid(), self.below)]

        def memory_info(self) -> object:
            if isinstance(self.own, Exception):
                raise self.own
            return type("Memory", (), {"rss": self.own})

    monkeypatch.delattr(os, "wait4", raising=False)
    monkeypatch.setattr(psutil, "Process", Process)
    process = Popen()
    assert processes.wait_and_measure(process) == 900
    assert process.returncode == 7


def test_the_status_of_a_process_is_kept() -> None:
    for status in (0, 3):
        process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])
        assert processes.wait_and_measure(process) > 2**20
        assert process.returncode == status


@pytest.mark.needs(platform.libc_ver()[0] == "glibc", reason="other C libraries give memory back by themselves")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Of 100 MB in small blocks, the last of which keeps the heap from shrinking."""
    blocks = [bytes(100_000) for _ in range(1000)]
    last = blocks[-1]
    blocks.clear()
    before = psutil.Process().memory_info().rss
    processes.release_memory()
    assert psutil.Process().memory_info().rss < before - 50_000_000
    assert len(last) == 100_000


@pytest.mark.needs(platform.libc_ver()[0] == "glibc", reason="other C libraries keep memory by rules of their own")
def test_kept_memory_is_used_again() -> None:
    """Of four blocks of 20 MB, ten times, only the first four are new to the process: 20,000 pages, not 200,000."""
    script = """
import resource
from mmms_plugin.processes import keep_memory
keep_memory()
for _ in range(10):
    blocks = [bytearray(b"x") * 20_000_000 for _ in range(4)]
    blocks.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 60_000


def test_compiled_code_is_silenced_and_python_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    """Also one inside the other, after an error, and where standard error is in memory; loggers keep their stream."""
    loggers = []
    for stream in (sys.__stderr__, io.StringIO()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            with suppress(ZeroDivisionError), processes.compiled_code_silenced(), processes.compiled_code_silenced():
                os.write(2, b"libjpeg\n")
                print("python", file=sys.stderr)
                loggers.append(sys.stderr)
                raise ZeroDivisionError
            assert sys.stderr is stream
    os.write(2, b"later\n")
    loggers[0].write("and a logger\n")
    assert capfd.readouterr().err == "python\nlater\nand a logger\n"
    assert stream.getvalue() == "python\n"


def test_a_folder_without_a_name_is_not_the_current_one():
    with pytest.raises(UserError, match=r"^--out: the name of the folder is empty$"):
        make_folder("")

"""Mutants: small changes of the package's code, each run against the tests that execute its line.

    python tools/mutants.py [--per-room 30] [--seed 0] [ROOM or FILE ...]

A change that no test notices shows a gap in the tests. In each room (a folder of the package), statements are drawn at
random, and one change of each. Tests run in copies; the working tree stays as it is, except for the record.

1. Which test executes which line is recorded once, including processes that tests start, and kept in
   ``build/mutants/record.json``. If a test file changes, that file is recorded again; if the package changes, all are.
2. Code that runs when a module is imported is executed by no particular test. It gets the tests that execute functions
   of its class or module, or else those of the modules that import it.
3. The tests of a mutant run in two parts, first those of the three test files with the most quick tests, each part the
   fastest first, until one fails. A run over its limit of time or memory counts as noticed.
4. At the end, the tests that noticed something run once on the unchanged code. Those that fail there are left out, and
   their mutants run again.

Some survivors behave exactly as the original, and no test can notice them: read the list.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

PACKAGE = "mmms_plugin"
MARKS = "not compiled and not gpu"
IGNORED = ("__pycache__", "build", "dist", "work_dirs", "demo_out")  # without a git repository
FIRST_FILES = 3  # test files of the first part
FIXTURE = "fixture "  # start of the context of a fixture that several tests share
IMPORT = ""  # context of code that runs outside of tests
NO_TESTS = 5  # exit status of pytest
RESULTS = NOT_EXECUTED, NOTICED, TIMED_OUT, SURVIVED = "not executed", "noticed", "timed out", "survived"
NOT_TRIED = "not tried"
RECORD = "build/mutants/record.json"
FORMAT = 2  # of the record

SHORT = 30  # shorter changes are shown with their line

Span = tuple[int, int]  # first and last line
Node = ast.expr | ast.stmt


# Changes of the code


COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
PAIRS = [("min", "max"), ("any", "all"), ("minimum", "maximum"), ("argmin", "argmax"), ("amin", "amax")]
NAMES = {**dict(PAIRS), **{right: left for left, right in PAIRS}}
TYPING = {"Literal", "Callable", "Union", "Optional", "Annotated", "dict", "list", "set", "tuple", "type"}


@dataclass(frozen=True)
class Mutant:
    """A change of the bytes ``start:end`` of a file, and what decides which tests execute them."""

    file: str
    line: int
    before: str
    after: str
    start: int
    end: int
    statement: int  # offset of the statement; one change of each is drawn
    spans: tuple[Span, ...]  # searched for tests, in turn: the change, its statement, its class, its module
    on_import: bool  # not in the body of a function
    is_value: bool  # an expression, whose replacement is put in brackets
    around: tuple[str, str]  # text before and after a short change in its line

    @property
    def room(self) -> str:
        package, *folders, _ = self.file.split("/")
        return folders[0] if folders else package

    @property
    def texts(self) -> tuple[str, str]:
        """Code before and after the change, as shown to the user."""
        left, right = self.around
        before, after = (" ".join(f"{left}{text}{right}".split()) for text in (self.before, self.after))
        same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
        return _part(before, same), _part(after, same)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {'  ->  '.join(self.texts)}"


def changes(node: ast.AST) -> Iterator[tuple[Node, str]]:
    """For every change of this node, not of its children: the part replaced and its new text."""

    def other(**fields: Any) -> tuple[Any, str]:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        return node, ast.unparse(changed)

    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                yield other(ops=[*operators[:index], COMPARISONS[type(operator)](), *operators[index + 1 :]])
        case ast.BoolOp(op=operator, values=values):
            yield other(op=ast.Or() if isinstance(operator, ast.And) else ast.And())
            for index in range(len(values)):
                rest = [*values[:index], *values[index + 1 :]]
                yield other(values=rest) if len(rest) > 1 else (node, ast.unparse(rest[0]))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, ast.unparse(operand)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            if not any(_is_text(part) for part in (left, right)):
                yield other(op=OPERATORS[type(operator)]())
        case ast.AugAssign(op=operator, value=value) if type(operator) in OPERATORS and not _is_text(value):
            yield other(op=OPERATORS[type(operator)]())
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield node, NAMES[name]
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in NAMES:
            yield other(attr=NAMES[name])
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, str(value + 1)
            yield node, str(value - 1)
        case ast.Slice():
            for bound in (node.lower, node.upper):
                if bound is not None and not isinstance(bound, ast.Constant):
                    yield bound, f"{ast.unparse(bound)} + 1"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield from _negated(test)
        case ast.comprehension(ifs=tests):
            yield from itertools.chain.from_iterable(map(_negated, tests))
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield node, "pass"
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield node, "return None"


def _negated(test: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    match test:
        case (
            ast.UnaryOp(op=ast.Not())
            | ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()])
        ):
            pass  # the comparison's own change is the same
        case _:
            yield test, f"not ({ast.unparse(test)})"


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def _part(text: str, place: int) -> str:
    """At most 90 characters of a text, starting shortly before ``place``."""
    start = 0 if len(text) <= 90 else max(0, place - 30)
    return "... " * (start > 0) + text[start : start + 90] + " ..." * (len(text) > start + 90)


class Source:
    """A file of the package and its mutants."""

    def __init__(self, root: Path, file: str) -> None:
        self.file = file
        self.bytes = (root / file).read_bytes()
        self.tree = ast.parse(self.bytes)
        lines = self.bytes.splitlines(keepends=True)
        self.starts = list(itertools.accumulate(map(len, lines), initial=0))
        self.left_out = {number for number, line in enumerate(lines, 1) if b"pragma: no cover" in line}
        self.in_functions: set[int] = set()  # lines
        self.mutants: list[Mutant] = []
        self._visit(self.tree, None, ((1, len(lines)),), on_import=True)

    def _visit(self, node: ast.AST, statement: ast.stmt | None, spans: tuple[Span, ...], on_import: bool) -> None:
        if isinstance(node, ast.stmt):
            statement = node
            if _is_skipped(node) or self.left_out & set(range(node.lineno, _end_of_head(node) + 1)):
                return
            if not on_import:
                self.in_functions |= set(range(_lines(node)[0], _lines(node)[1] + 1))
        if isinstance(node, (ast.JoinedStr, ast.pattern)):
            return
        if statement is not None:
            for part, text in changes(node):
                self._add(part, text, statement, spans, on_import)
        inside, inside_on_import = spans, on_import
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and on_import:
            # A cached function runs only in the first test that calls it.
            cached = any("cache" in ast.unparse(decorator) for decorator in node.decorator_list)
            inside_on_import = cached or isinstance(node, ast.ClassDef)
            inside = spans if cached else (_lines(node), *spans)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self._visit(child, statement, inside, inside_on_import if field == "body" else on_import)

    def _add(self, part: Node, text: str, statement: ast.stmt, spans: tuple[Span, ...], on_import: bool) -> None:
        first, last = _lines(part)
        start = self.starts[first - 1] + part.col_offset
        end = self.starts[last - 1] + (part.end_col_offset or 0)
        if not on_import:
            spans = ((first, last), (statement.lineno, _end_of_head(statement)))
        before = ast.unparse(part)
        statement_start = self.starts[statement.lineno - 1] + statement.col_offset
        is_value = isinstance(part, ast.expr)
        around = self._around(start, end) if len(before) < SHORT and is_value else ("", "")
        self.mutants.append(
            Mutant(self.file, first, before, text, start, end, statement_start, spans, on_import, is_value, around)
        )

    def _around(self, start: int, end: int) -> tuple[str, str]:
        left = self.bytes[:start].rpartition(b"\n")[2].decode().lstrip()
        right = self.bytes[end:].partition(b"\n")[0].decode().rstrip()
        return left, right

    def changed(self, mutant: Mutant) -> bytes:
        """The file with the change; line numbers stay the same."""
        padding = "\n" * self.bytes[mutant.start : mutant.end].count(b"\n")
        text = f"({mutant.after}{padding})" if mutant.is_value else mutant.after + padding
        return self.bytes[: mutant.start] + text.encode() + self.bytes[mutant.end :]


def _lines(node: Node) -> Span:
    return node.lineno, node.end_lineno or node.lineno


def _end_of_head(statement: ast.stmt) -> int:
    """The last line of a statement without its block."""
    blocks = [*getattr(statement, "body", []), *getattr(statement, "cases", [])]
    first = blocks[0] if blocks else None
    if first is None:
        return _lines(statement)[1]
    line = first.pattern.lineno if isinstance(first, ast.match_case) else first.lineno
    return max(statement.lineno, line - 1)


def _is_skipped(statement: ast.stmt) -> bool:
    """Asserts, __all__, type aliases, and code for type checkers."""
    match statement:
        case ast.Assert():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AugAssign(target=ast.Name(id="__all__")):
            return True
        case ast.Assign(value=ast.Subscript(value=ast.Name(id=name))) if name in TYPING:
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
    return type(statement).__name__ == "TypeAlias"


def sources(root: Path, paths: Sequence[str]) -> dict[str, Source]:
    """Files in these folders, files or rooms; by default those of the whole package."""
    files: set[Path] = set()
    for name in paths or [PACKAGE]:
        path = next((path for path in (root / name, root / PACKAGE / name) if path.exists()), None)
        if path is None:
            raise SystemExit(f"mutants: no folder, file or room: {name}")
        files.update(path.rglob("*.py") if path.is_dir() else [path])
    names = sorted(file.resolve().relative_to(root).as_posix() for file in files)
    return {name: Source(root, name) for name in names}


def drawn(mutants: Iterable[Mutant], seed: int) -> dict[str, list[Mutant]]:
    """For each room, one change of every statement, in random order."""
    statements: dict[str, dict[tuple[str, int], list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    for mutant in mutants:
        statements[mutant.room][mutant.file, mutant.statement].append(mutant)
    order = {}
    for room in sorted(statements):
        dice = random.Random(f"{seed} {room}")
        changes_of = list(statements[room].values())
        dice.shuffle(changes_of)
        order[room] = [dice.choice(choice) for choice in changes_of]
    return order


# The record of which test executes which line


class Record:
    """Work, duration, shared fixtures and executed lines of every test that passed, by test file.

    ``files[test file]`` has a ``hash``, ``tests`` (``[name, work, seconds, fixtures]``) and ``lines`` (``{source:
    {line: [index of test]}}``); ``shared[context]`` has the lines of a fixture that several tests share, or of imports.
    """

    def __init__(self, root: Path, tests: Sequence[str], path: Path) -> None:
        self.root, self.path = root, path
        wanted = sorted(_test_files(root, tests))
        code = [file for folder in (PACKAGE, "tests", "configs") for file in (root / folder).rglob("*.py")]
        every_test_file = set(_test_files(root, ["tests"]))
        digest = hashlib.sha256(f"{FORMAT} {sys.version}".encode())
        for file in sorted(file.relative_to(root).as_posix() for file in code):
            if file not in every_test_file:
                digest.update(file.encode() + b"\0" + (root / file).read_bytes())
        self.source_hash = digest.hexdigest()
        self.files: dict[str, dict[str, Any]] = {}
        self.shared: dict[str, dict[str, list[int]]] = {}
        with suppress(OSError, ValueError, KeyError):
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["source"] == self.source_hash:
                self.files, self.shared = content["files"], content["shared"]
        self.wanted = {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in wanted}
        self.stale = [file for file in wanted if self.files.get(file, {}).get("hash") != self.wanted[file]]

    def update(self, trees: Trees, workers: int) -> None:
        """Run the test files that are not in the record in their present form."""
        import coverage

        folder = trees.folder / "record"
        folder.mkdir()
        tree = trees.new()
        settings = folder / "coveragerc"
        settings.write_text(
            f"[run]\ncore = ctrace\nparallel = true\ndata_file = {folder / 'data'}\nsource = {tree / PACKAGE}\n"
            f"context = ${{MUTANTS_CONTEXT-}}\npatch = _exit\nsigterm = true\ndisable_warnings = no-data-collected\n",
            encoding="utf-8",
        )
        variables = {"COVERAGE_PROCESS_START": str(settings), "MUTANTS_RECORD": str(folder)}
        arguments = ["-n", str(workers), "--dist", "worksteal"] if workers > 1 else ["-p", "no:xdist"]
        start = time.monotonic()
        run = trees.start(tree, [*arguments, "-m", MARKS, *self.stale], variables)
        while run.running():
            count = sum(file.read_bytes().count(b"\n") for file in folder.glob("tests-*.jsonl"))
            progress(f"recording {len(self.stale)} test files: {count} tests, {time.monotonic() - start:.0f} s")
            time.sleep(1)
        results = [
            json.loads(line)
            for file in sorted(folder.glob("tests-*.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines()
        ]
        if run.status not in (0, 1, NO_TESTS):
            log = (tree.parent / "log.txt").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"mutants: the tests did not run (exit status {run.status}):\n{log[-3000:]}")
        failed = [result["name"] for result in results if result["failed"]]
        if failed:
            progress.say(f"{len(failed)} tests fail on the unchanged code and are left out: {' '.join(failed[:10])}")
        reader = coverage.Coverage(data_file=str(folder / "data"), config_file=False)
        with suppress(coverage.exceptions.NoDataError):
            reader.combine([str(folder)])
        self._add(results, reader.get_data(), tree)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"source": self.source_hash, "files": self.files, "shared": self.shared}
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        temporary.replace(self.path)

    def _add(self, results: list[dict[str, Any]], data: Any, tree: Path) -> None:
        index_of: dict[str, tuple[str, int]] = {}
        for file in self.stale:
            self.files[file] = {"hash": self.wanted[file], "tests": [], "lines": defaultdict(lambda: defaultdict(list))}
        for result in results:
            file = _file_of(result["name"])
            if result["passed"] and file in self.files:
                tests = self.files[file]["tests"]
                index_of[result["name"]] = file, len(tests)
                tests.append([result["name"], result["work"], result["seconds"], result["fixtures"]])
        for path in data.measured_files():
            source = Path(path).relative_to(tree).as_posix()
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    if context in index_of:
                        file, index = index_of[context]
                        self.files[file]["lines"][source][str(line)].append(index)
                    elif context == IMPORT or context.startswith(FIXTURE):
                        lines = self.shared.setdefault(context, {}).setdefault(source, [])
                        if line not in lines:
                            lines.append(line)


class Choice:
    """The tests that can notice a mutant."""

    def __init__(self, record: Record) -> None:
        self.seconds: dict[str, float] = {}
        self.work: dict[str, float] = {}  # processor time in seconds, independent of what else runs
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        users: dict[str, set[str]] = defaultdict(set)
        for file in record.wanted:
            content = record.files[file]
            names = [name for name, *_ in content["tests"]]
            for name, work, seconds, fixtures in content["tests"]:
                self.work[name], self.seconds[name] = work, seconds
                for fixture in fixtures:
                    users[fixture].add(name)
            for source, lines in content["lines"].items():
                for line, indices in lines.items():
                    self.lines[source][int(line)].update(names[index] for index in indices)
        for context, files in record.shared.items():
            for source, lines in files.items():
                for line in lines:
                    self.lines[source][line] |= users[context]
        self.imported = {source: set(lines) for source, lines in record.shared.get(IMPORT, {}).items()}
        self.importers = _importers(record.root)
        self.in_functions = {file: Source(record.root, file).in_functions for file in self.importers}
        self.left_out: set[str] = set()

    def parts(self, mutant: Mutant) -> list[list[str]]:
        """The tests of a mutant, in the parts and order in which they run; empty if no test executes the change."""
        names: set[str] = set()
        lines, functions = self.lines[mutant.file], self.in_functions[mutant.file]
        imported = self.imported.get(mutant.file, set())
        on_import = mutant.on_import
        for first, last in mutant.spans:
            span = [line for line in range(first, last + 1) if not mutant.on_import or line in functions]
            names = set().union(*(lines.get(line, ()) for line in span))
            on_import = on_import or not imported.isdisjoint(span)
            if names:
                break
        if on_import and not (names and mutant.on_import):
            names = names | self._of_module(mutant.file, set())
        names = {name for name in names if self.left_out.isdisjoint((name, _file_of(name)))}
        merit: Counter[str] = Counter()  # of test files
        for name in sorted(names):
            merit[_file_of(name)] += round(100 / (self.work[name] + 0.1))
        first_files = [file for file, _ in merit.most_common(FIRST_FILES)]
        tests = sorted(names, key=lambda name: (self.work[name], name))
        parts = [[name for name in tests if (_file_of(name) in first_files) == first] for first in (True, False)]
        return [part for part in parts if part]

    def outcome(self, mutant: Mutant) -> Outcome:
        """Not tried yet, or not executed by any test."""
        return Outcome(mutant, NOT_TRIED if self.parts(mutant) else NOT_EXECUTED)

    def _of_module(self, file: str, seen: set[str]) -> set[str]:
        """Tests that execute functions of a module, or else of the modules that import it."""
        seen.add(file)
        names = set().union(*(self.lines[file].get(line, ()) for line in self.in_functions[file]))
        if not names:
            for importer in self.importers[file] - seen:
                names |= self._of_module(importer, seen)
        return names


def _importers(root: Path) -> dict[str, set[str]]:
    """For every file of the package, the files of the package that import it."""
    files = {file.relative_to(root).as_posix(): file for file in sorted((root / PACKAGE).rglob("*.py"))}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files}
    importers: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = name.split("/")[: -node.level] if node.level else []
                module = ".".join([*above, *filter(None, [node.module])])
                imported = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for module in imported:
                if module in modules and modules[module] != name:
                    importers[modules[module]].add(name)
    return importers


def _test_files(root: Path, tests: Sequence[str]) -> Iterator[str]:
    for name in tests:
        path = root / name
        if not path.exists():
            raise SystemExit(f"mutants: no folder or file of tests: {name}")
        for file in path.rglob("test_*.py") if path.is_dir() else [path]:
            yield file.resolve().relative_to(root).as_posix()


def _file_of(test: str) -> str:
    return test.partition("::")[0]


# Runs of tests


class Trees:
    """Copies of the working tree, in a temporary folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.original = folder, folder / "original"  # the working tree may change meanwhile
        self.numbers = itertools.count()
        self.lock, self.stopped = threading.Lock(), False
        self.runs: list[Run] = []
        if (root / ".git").exists():
            command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
            listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        else:
            paths = (path.relative_to(root) for path in root.rglob("*"))
            listed = [str(path) for path in paths if not any(_is_ignored(part) for part in path.parts)]
        for name in listed:
            if (root / name).is_file():
                (self.original / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.original / name)
        # pytest imports this file as a plugin; with the whole folder on the path, other tools would hide modules.
        (folder / "plugin").mkdir()
        shutil.copy2(__file__, folder / "plugin" / "mutants.py")

    def new(self) -> Path:
        tree = self.folder / str(next(self.numbers)) / "tree"
        shutil.copytree(self.original, tree)
        (tree.parent / "tmp").mkdir()
        return tree

    def start(self, tree: Path, arguments: Sequence[str], variables: dict[str, str]) -> Run:
        """Start pytest in a copy; its output goes into a file beside the copy."""
        ours = ("PYTEST_", "COVERAGE_", "COV_CORE_", "MUTANTS_", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tree.parent / "tmp"))
        environment["PYTHONPATH"] = os.pathsep.join([str(tree), str(self.folder / "plugin")])
        environment["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, "-m", "pytest", "-p", "mutants", "-p", "no:cacheprovider", "-q", *arguments]
        with self.lock:
            if self.stopped:
                raise KeyboardInterrupt
            run = Run(command, tree, environment | variables, tree.parent / "log.txt")
            self.runs.append(run)
        return run

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
        for run in self.runs:
            if run.status is None:
                run.end()


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED or name.endswith(".egg-info")


class Run:
    """A process and its children."""

    def __init__(self, command: Sequence[str], tree: Path, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.status: int | None = None

    def running(self) -> bool:
        if self.process.poll() is None:
            return True
        self.end()
        return False

    def finish(self, seconds: float) -> bool:
        """Wait for the end; False after so many seconds, or if it uses a quarter of the memory."""
        end, limit = time.monotonic() + seconds, psutil.virtual_memory().total // 4
        while self.running():
            time.sleep(0.1)
            if time.monotonic() > end or self._memory() > limit:
                self.end()
                return False
        return True

    def end(self) -> None:
        """End all of its processes, including any left behind."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        if hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.status = self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def _memory(self) -> int:
        total = 0
        for process in self._processes():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    result: str  # one of RESULTS
    tests: int = 0  # tests that had time to run
    of: int = 0  # tests that execute the change
    by: str = ""  # the test that failed
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        mutant = {name: getattr(self.mutant, name) for name in ("room", "file", "line")}
        mutant |= dict(zip(("before", "after"), self.mutant.texts, strict=True))
        return mutant | {name: value for name, value in asdict(self).items() if name != "mutant"}


class Laboratory:
    """Tries mutants, each in a copy of the tree that no other run uses meanwhile."""

    def __init__(self, trees: Trees, choice: Choice, files: dict[str, Source], limit: float) -> None:
        self.trees, self.choice, self.files, self.limit = trees, choice, files, limit
        self.free: SimpleQueue[Path] = SimpleQueue()
        self.times = itertools.count(1_000_000_000)

    def try_one(self, mutant: Mutant) -> Outcome:
        start = time.monotonic()
        parts = self.choice.parts(mutant)
        result, by, count = SURVIVED, "", 0
        with self._tree() as tree:
            path = tree / mutant.file
            before = path.stat()
            path.write_bytes(self.files[mutant.file].changed(mutant))
            # Python checks bytecode by size and whole seconds: each version of a file gets its own second.
            os.utime(path, (next(self.times),) * 2)
            for part in parts:
                tests = self._affordable(part)
                count += len(tests)
                result, failed = self._run(tree, tests, "-x")
                by = next(iter(failed), "")
                if result != SURVIVED:
                    break
            path.write_bytes(self.files[mutant.file].bytes)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return Outcome(mutant, result, count, sum(map(len, parts)), by, round(time.monotonic() - start, 1))

    def fail_without_change(self, tests: Iterable[str]) -> list[str]:
        with self._tree() as tree:
            result, failed = self._run(tree, sorted(tests), "--continue-on-collection-errors")
        if result == TIMED_OUT:
            progress.say(
                "the tests that noticed something did not finish on the unchanged code: the shares are uncertain"
            )
        return failed

    def _affordable(self, tests: list[str]) -> list[str]:
        """The first tests that together take at most half of the limit; at least one."""
        total = itertools.accumulate(self.choice.work[name] for name in tests)
        return [
            name
            for index, (name, end) in enumerate(zip(tests, total, strict=True))
            if index == 0 or end < self.limit / 2
        ]

    def _run(self, tree: Path, tests: list[str], option: str) -> tuple[str, list[str]]:
        """The result, and the tests or test files that failed."""
        chosen, failed = tree.parent / "chosen.json", tree.parent / "failed.txt"
        chosen.write_text(json.dumps(tests), encoding="utf-8")
        failed.write_text("", encoding="utf-8")
        variables = {"MUTANTS_CHOSEN": str(chosen), "MUTANTS_FAILED": str(failed)}
        files = list(dict.fromkeys(_file_of(name) for name in tests))
        run = self.trees.start(tree, ["-p", "no:xdist", option, *files], variables)
        # Twice the time that they took, plus the limit, for start-up and endless loops.
        in_time = run.finish(self.limit + 2 * sum(self.choice.seconds.get(name, 0) for name in tests))
        shutil.rmtree(tree.parent / "tmp", ignore_errors=True)
        (tree.parent / "tmp").mkdir(exist_ok=True)
        result = TIMED_OUT if not in_time else SURVIVED if run.status in (0, NO_TESTS) else NOTICED
        return result, failed.read_text(encoding="utf-8").splitlines()

    @contextmanager
    def _tree(self) -> Iterator[Path]:
        tree = self.trees.new() if self.free.empty() else self.free.get()
        yield tree
        self.free.put(tree)


# The pytest plugin: recording, and running the tests of a mutant


class Recorder:
    """Tells coverage which test runs, in this process and in those that the test starts."""

    def __init__(self, folder: Path) -> None:
        import coverage

        current = coverage.Coverage.current()
        if current is None:
            raise pytest.UsageError(
                "coverage did not start automatically: 7.13 or later is needed, installed with its .pth file"
            )
        self.coverage = current
        self.path = folder / f"tests-{os.getpid()}.jsonl"
        self.context = IMPORT
        self.reports: list[pytest.TestReport] = []

    @contextmanager
    def _within(self, context: str) -> Iterator[None]:
        outside = self.context
        for name in (context, outside):
            self.context = os.environ["MUTANTS_CONTEXT"] = name
            self.coverage.switch_context(name)
            if name is context:
                yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.reports = []
        work = -_work()
        with self._within(item.nodeid):
            result = yield
        work += _work()
        definitions = getattr(item, "_fixtureinfo", None)
        shared = [
            _context_of(definition)
            for several in (definitions.name2fixturedefs.values() if definitions else ())
            for definition in several
            if definition.scope != "function"
        ]
        outcome = {
            "name": item.nodeid,
            "work": round(work, 3),
            "seconds": round(sum(report.duration for report in self.reports), 3),
            "fixtures": shared,
            "passed": all(report.passed for report in self.reports),
            "failed": any(report.failed for report in self.reports),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        with self._within(_context_of(fixturedef)):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


def _work() -> float:
    """Processor time in seconds of this process and its finished children."""
    return sum(os.times()[:4])


def _context_of(fixture: pytest.FixtureDef) -> str:
    return f"{FIXTURE}{fixture.baseid}::{fixture.argname}"


class Selection:
    """Runs only the chosen tests, in their order, and writes the names of those that fail to a file."""

    def __init__(self, chosen: Path, failed: Path) -> None:
        self.place = {name: index for index, name in enumerate(json.loads(chosen.read_text(encoding="utf-8")))}
        self.failed = failed

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.place]
        items[:] = sorted(chosen, key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.pytest_collectreport(report)

    def pytest_collectreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            with self.failed.open("a", encoding="utf-8") as file:
                file.write(report.nodeid + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if "MUTANTS_RECORD" in os.environ:
        config.pluginmanager.register(Recorder(Path(os.environ["MUTANTS_RECORD"])))
    if "MUTANTS_CHOSEN" in os.environ:
        paths = (Path(os.environ[name]) for name in ("MUTANTS_CHOSEN", "MUTANTS_FAILED"))
        config.pluginmanager.register(Selection(*paths))


# The command


def report(outcomes: Iterable[Outcome]) -> str:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lists: dict[str, list[str]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.mutant.file, outcome.mutant.line)):
        counts[outcome.mutant.room][outcome.result] += 1
        cut = f"  ({outcome.tests} of {outcome.of} tests)" if outcome.tests < outcome.of else ""
        lists[outcome.result].append(f"{outcome.mutant}{cut}")
    width = max(map(len, counts), default=0)
    rows = [(room, counts[room]) for room in sorted(counts)]
    if len(rows) > 1:
        rows.append(("all", sum(counts.values(), Counter())))
    lines = ["  ".join([" " * max(width, 4), *RESULTS, "share noticed"])]
    for room, count in rows:
        numbers = [f"{count[result]:>{len(result)}}" for result in RESULTS]
        tried = count[NOTICED] + count[TIMED_OUT] + count[SURVIVED]
        share = f"{(tried - count[SURVIVED]) / tried:.0%}" if tried else "-"
        lines.append("  ".join([f"{room:<{max(width, 4)}}", *numbers, f"{share:>13}"]))
    for result in (NOT_EXECUTED, SURVIVED):
        if lists[result]:
            lines += ["", f"{result}:", *lists[result]]
    return "\n".join(lines)


class Progress:
    """One line that is overwritten; without a terminal, a line a minute."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text[:119]:<119}", end="", file=sys.stderr, flush=True)
        elif text and time.monotonic() > self.last + 60:
            self.last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        self("")
        print("\r" * sys.stderr.isatty() + text, file=sys.stderr, flush=True)


progress = Progress()


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure which share of small changes of the code the tests notice, room by room."
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="rooms, folders or files (default: the whole package)")
    parser.add_argument(
        "--per-room", type=int, default=30, metavar="N", help="mutants to try in each room (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the draw (default: 0)")
    parser.add_argument(
        "--tests",
        nargs="+",
        default=["tests"],
        metavar="PATH",
        help="folders or files of tests to use (default: tests)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds a mutant may take (default: 30)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="number of processes (default: 2)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write all outcomes as JSON")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    outcomes: dict[Mutant, Outcome] = {}
    status = 0
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        trees = Trees(arguments.root.resolve(), Path(folder).resolve())
        try:
            files = sources(trees.original, arguments.paths)
            order = drawn((mutant for file in files.values() for mutant in file.mutants), arguments.seed)
            record = Record(trees.original, arguments.tests, arguments.root / RECORD)
            if record.stale:
                record.update(trees, arguments.workers)
            choice = Choice(record)
            laboratory = Laboratory(trees, choice, files, arguments.timeout)
            for mutants in order.values():
                executed = 0
                for mutant in mutants:
                    outcomes[mutant] = choice.outcome(mutant)
                    executed += outcomes[mutant].result == NOT_TRIED
                    if executed == arguments.per_room:
                        break
            try_all(laboratory, outcomes, arguments.workers)
            by = {outcome.by for outcome in outcomes.values() if outcome.by}
            choice.left_out = set(laboratory.fail_without_change(by)) if by else set()
            if choice.left_out:
                progress.say(
                    f"these tests also fail on the unchanged code and are left out: {' '.join(sorted(choice.left_out))}"
                )
                for mutant, outcome in outcomes.items():
                    if outcome.by in choice.left_out:
                        outcomes[mutant] = choice.outcome(mutant)
                try_all(laboratory, outcomes, arguments.workers)
        except KeyboardInterrupt:
            progress.say("interrupted")
            status = 130
        finally:
            trees.stop()
    progress("")
    print(report(outcomes.values()))
    if arguments.keep:
        content = [outcome.plain() for outcome in outcomes.values()]
        arguments.keep.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return status


def try_all(laboratory: Laboratory, outcomes: dict[Mutant, Outcome], workers: int) -> None:
    rooms: dict[str, list[Mutant]] = defaultdict(list)
    for mutant, outcome in outcomes.items():
        if outcome.result == NOT_TRIED:
            rooms[mutant.room].append(mutant)
    # One of each room in turn: an interrupted run has results for all rooms.
    turns = itertools.zip_longest(*rooms.values())
    waiting = [mutant for turn in turns for mutant in turn if mutant is not None]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(laboratory.try_one, mutant) for mutant in waiting]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                outcome = future.result()
                outcomes[outcome.mutant] = outcome
                survived = sum(outcome.result == SURVIVED for outcome in outcomes.values())
                progress(f"{number} of {len(waiting)} mutants, {survived} survived; {outcome.mutant}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            laboratory.trees.stop()
            raise


if __name__ == "__main__":
    sys.exit(main())

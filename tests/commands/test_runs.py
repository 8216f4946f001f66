"""`mmms runs`, and the results that trainings write for it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.report.run_results import FILES, Evaluated, RunResults


def write(folder: Path, values: list[float | None], metric: str = "mAP", **options) -> RunResults:
    results = RunResults("small", 3, 12, "epochs", metric, **options)
    for i, value in enumerate(values, 1):
        results.add(Evaluated(i, 10 * i, 60.0 * i, 0.1, 1 / i, {metric: value, "x": float(i)}))
    folder.mkdir(parents=True)
    results.write(folder)
    return results


def test_trainings_are_compared_by_their_best_evaluation(tmp_path, capsys) -> None:
    write(tmp_path / "a", [0.1, 0.3, 0.2])
    write(tmp_path / "deep/b", [0.4, None], done=True)
    write(tmp_path / "c", [None])
    write(tmp_path / "d", [3.0, 2.0, 4.0], metric="loss", rule="less")
    (tmp_path / "e").mkdir()
    empty = (tmp_path / "c/results.json").read_text(encoding="utf-8").partition('"evaluations": [')
    (tmp_path / "e/results.json").write_text("".join(empty[:2]) + "]}", encoding="utf-8")
    assert main(["runs", str(tmp_path), "--csv", str(tmp_path / "runs.csv")]) == 0
    printed = capsys.readouterr()
    assert "4 trainings in" in printed.out
    assert printed.err.startswith(f"skipped: results {tmp_path / 'e/results.json'}: holds no evaluation; ")
    with (tmp_path / "runs.csv").open(encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["d", "deep/b", "a", "c"]
    assert [rows["a"][name] for name in ("config", "metric", "best", "at", "done", "time", "seed")] == [
        "small", "mAP", "0.3", "2", "3 of 12 epochs (stopped)", "0:03:00", "3",
    ]  # fmt: skip
    assert (rows["deep/b"]["done"], rows["d"]["best"], rows["c"]["best"]) == ("2 of 12 epochs", "2.0", "")
    assert main(["runs", str(tmp_path), "--metric", "x"]) == 0
    assert "4" not in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "DIR nowhere: no such folder"),
        (["empty"], "DIR empty: no training has written results.json there or below"),
        (["run", "--metric", "mAp"], "--metric mAp: no training reports it; allowed are mAP, x"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write(Path("run"), [0.5])
    assert main(["runs", *arguments]) == 2
    assert capsys.readouterr().err == f"mmms runs: error: {message}\n"


def test_results_are_read_as_they_were_written_and_damaged_ones_refused(tmp_path) -> None:
    results = write(tmp_path / "run", [0.5, None], rule="less")
    file = tmp_path / "run/results.json"
    assert RunResults.read(file) == results
    assert sorted(path.name for path in file.parent.iterdir()) == sorted(FILES)
    results.add(Evaluated(1, 5, 1.0, None, None, {}))
    assert [evaluation.iteration for evaluation in results.evaluations] == [5], "a resumed training replaces later rows"
    file.write_text(file.read_text(encoding="utf-8").replace('"iteration": 10', '"iteration": -1'), encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluations\[0\].iteration: .* at least 0|>= 0"):
        RunResults.read(file)

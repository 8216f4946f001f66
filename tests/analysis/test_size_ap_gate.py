"""A damaged ``results.json`` given as ``--baseline`` is refused with one line, whatever is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmms_plugin.analysis.size_ap import size_ap
from mmms_plugin.analysis.size_ap.gate import read_baseline
from mmms_plugin.analysis.size_ap.results import SizeAPResults
from mmms_plugin.errors import UserError
from tests.analysis.size_ap_data import random_coco


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> SizeAPResults:
    folder = tmp_path_factory.mktemp("gate")
    for name, content in zip(("ann.json", "pred.json"), random_coco(3), strict=True):
        (folder / name).write_text(json.dumps(content))
    return size_ap(folder / "ann.json", [folder / "pred.json"], bootstrap=20, errors=False)


def changed(content: Any, place: tuple[str | int, ...], value: object) -> Any:
    """A copy of JSON content with another value in one place."""
    copy = json.loads(json.dumps(content))
    at = copy
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return copy


def test_the_same_results_are_not_worse(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results.to_json()))
    assert read_baseline(str(path)).failures(results) == ()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("runs",), []),
        (("runs", 0, "bins"), []),
        (("runs", 0, "bins"), {}),
        (("runs", 0, "bins", 1, "bin", "name"), "another"),
        (("runs", 0, "bins", 0, "bin"), None),
        (("runs", 0, "bins", 0, "ap"), 1e308),
        (("runs", 0, "bins", 0, "ap"), float("nan")),
        (("runs", 0, "bins", 0, "ap"), float("inf")),
        (("runs", 0, "bins", 0, "ap_draws", 3), float("-inf")),
        (("runs", 0, "bins", 0, "ap_draws", 3), 7),
        (("runs", 0, "bins", 0, "ap_draws"), [0.5]),
        (("runs", 0, "bins", 0, "ap_draws"), "x"),
        (("bins",), 5),
        (("bins",), [{}]),
        (("replicates",), 0),
        (("replicates",), float("inf")),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_damaged_baseline_is_refused_in_one_line(results, tmp_path, place, value):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(changed(results.to_json(), place, value)))
    with pytest.raises(UserError, match=r"--baseline .*results\.json: .*must be a results\.json that") as caught:
        read_baseline(str(path)).failures(results)
    assert "\n" not in str(caught.value)

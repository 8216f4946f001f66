"""Findings: counted, ordered, cut to a few examples; the line that stops training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmms_plugin.coco.findings import Findings, refuse_errors
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError


def test_findings_come_errors_first_with_the_first_examples():
    findings = Findings("a.json", {"box-small": "error", "class-unused": "none", "box-nan": "warning"})
    assert list(findings) == []
    assert "area" not in findings
    for i in range(1002):
        findings.add("area", f"annotation {i}")
    findings.add("no-objects", count=4)
    for code in ("image-unused", "class-unused", "box-small", "no-images", "box-nan"):
        findings.add(code, code.upper())
    for i in range(4):
        findings.add("picture-twice", str(i), count=2)
    for i in range(3):
        findings.add("picture-cmyk", str(i))
    assert "area" in findings
    assert [(f.code, f.severity, f.count, f.more) for f in findings] == [
        ("no-images", "error", 1, ""),
        ("no-objects", "error", 4, ""),
        ("box-small", "error", 1, ""),
        ("area", "mended", 1002, " and 999 more"),
        ("box-nan", "warning", 1, ""),
        ("image-unused", "warning", 1, ""),
        ("picture-cmyk", "warning", 3, ""),
        ("picture-twice", "warning", 8, " and 5 more"),
    ]
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code["area"].examples) == 1000
    assert by_code["area"].examples[-1] == "annotation 999"
    assert by_code["area"].text == (
        "annotations without an area above 0: 1002 (annotation 0; annotation 1; annotation 2 and 999 more); computed "
        "from the mask, or the box where there is none"
    )
    assert by_code["picture-cmyk"].text.startswith("CMYK pictures: 3 (0; 1; 2); ")
    assert by_code["no-images"].text == "annotation files without images: 1 (NO-IMAGES)"
    assert by_code["no-objects"].text.startswith("annotation files without objects: 4; nothing to train on")
    assert by_code["picture-twice"].as_json() == {
        "code": "picture-twice", "severity": "warning", "file": "a.json", "count": 8,
        "what": "pictures with the same content within one split", "examples": ["0", "1", "2", "3"], "advice": "",
        "total": None,
    }  # fmt: skip


def test_a_share_is_reported_where_the_total_is_known():
    findings = Findings("a.json")
    findings.add_where("box-small", np.array([True, False] * 4), str, total=9)
    findings.add_where("box-nan", np.zeros(3, bool), str, total=3)
    (finding,) = findings
    assert (finding.title, finding.total) == ("boxes with a side below 1 px: 4 of 9", 9)
    assert finding.text.startswith("boxes with a side below 1 px: 4 of 9 (0; 2; 4 and 1 more); mmdet")


def test_errors_stop_with_the_first_and_the_names_of_the_others():
    first, second = Findings("a.json"), Findings("b.json")
    first.add("area", "x")
    refuse_errors([*first, *second], "mms check")
    first.add("no-images")
    both = (first, second)
    with pytest.raises(UserError, match=r"^a.json: annotation files without images: 1$"):
        refuse_errors(finding for findings in both for finding in findings)
    for findings in both:
        findings.add("no-images")
        findings.add("box-nan", "annotation 1")
        findings.add("box-negative")
    with pytest.raises(
        UserError,
        match=r"^a.json: annotation files without images: 2; also boxes with NaN, infinity or numbers beyond 1e9, "
        r"boxes with a negative width or height \(mmms check lists everything\)$",
    ):
        refuse_errors([finding for findings in both for finding in findings], "mmms check")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": Path("a")}, "--data a: no such folder"),
        ({"folder": Path("file")}, "--data file: no such folder"),
        ({"img_dir": Path("a")}, "--img-dir a: no such folder"),
        ({"train_ann": Path("a")}, "--train-ann a: no such file"),
        ({"val_ann": Path()}, r"--val-ann \.: no such file"),
        ({"val_split": -0.1}, "--val-split -0.1: must be above 0 and below 1, such as 0.2"),
        ({"val_split": 1}, "--val-split 1: must be"),
        ({"val_split": 0.2, "val_ann": Path("file")}, "--val-split and --val-ann: give one of them"),
        ({"val_split": 0.999, "train_ann": Path("file"), "img_dir": Path(), "folder": Path()}, None),
        ({"val_ann": Path("file")}, None),
    ],
)
def test_options_of_data_are_checked(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    if message:
        with pytest.raises(UserError, match=f"^{message}"):
            OwnData("--data", **{"folder": None, **options})
    else:
        own = OwnData("--data", **{"folder": None, **options})
        assert own.where == ("--data ." if own.folder else "--data")

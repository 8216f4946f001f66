"""What a task needs that is not installed everywhere."""

from __future__ import annotations

import pytest

from mmms_plugin.commands import main
from mmms_plugin.compat import hosts


@pytest.mark.parametrize("command", ["train", "test", "early-exit"])
def test_a_missing_host_is_named(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "find_spec", lambda name: None if name == "torchvision" else object())
    checkpoint = tmp_path / "a.pth"
    checkpoint.touch()
    more = {
        "train": [],
        "test": [str(checkpoint)],
        "early-exit": [str(checkpoint), "--out", str(tmp_path / "out")],
    }[command]
    assert main([command, "imagenet/msdnet_step4", *more, "--work-dir", str(tmp_path / "work")]) == 2
    error = capsys.readouterr().err
    assert "this config is a classifier: torchvision, which mmpretrain imports, is not installed: install the" in error
    assert not (tmp_path / "work").exists()

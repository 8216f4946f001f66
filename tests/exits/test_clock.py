"""Measurements count what the network itself takes."""

from __future__ import annotations

import time

import pytest
import torch

from mmms_plugin.exits import clock


def test_with_one_thread_the_time_of_others_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock.clock_name() == "processor time"
    assert clock.seconds(lambda: time.sleep(0.05)) < 0.04
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clock.clock_name() == "wall time"
    assert clock.seconds(lambda: time.sleep(0.05)) >= 0.05

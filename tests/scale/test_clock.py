"""Measurements count what the network itself takes."""

from __future__ import annotations

import time

import pytest
import torch

from mmms_plugin.scale import clock


def test_with_one_thread_the_time_of_others_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock.clock_name() == "processor time"
    assert clock.seconds(lambda: time.sleep(0.05)) < 0.04
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clock.clock_name() == "wall time"
    assert clock.seconds(lambda: time.sleep(0.05)) >= 0.05
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(clock, "WINDOWS", True)  # its processor time has steps of 1/64 s
    assert clock.clock_name() == "wall time"


def test_a_gpu_in_use_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    waits: list[bool] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waits.append(True))
    clock.now()
    assert not waits
    for name in ("torch.cuda.is_initialized", "torch.backends.mps.is_available"):
        with monkeypatch.context() as patch:
            patch.setattr(name, lambda: True)
            assert clock.clock_name() == "wall time"
            clock.now()
    assert len(waits) == 2

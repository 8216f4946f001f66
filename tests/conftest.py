"""Fixtures: small generated data sets, made once for the whole run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmms_plugin.commands.reproduce_smoke import hosts_repeat_no_slow_steps
from mmms_plugin.datasets import write_shapes
from tests.skips import (  # noqa: F401  hooks of pytest
    pytest_collection_modifyitems,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)

# Some CI services set these; rich then writes escape codes into captured output, which tests compare.
for _name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)
os.environ["MMMS_VERSION_WARNING"] = "0"  # the tests decide whether a version works
# A shell ignores the first for what it runs in the background, nohup the second; commands leave ignored signals alone.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)


def pytest_configure(config: pytest.Config) -> None:
    """Warn about open() without an encoding in this process only; processes that tests start load hosts."""
    if not getattr(
        config.option, "numprocesses", None
    ):  # xdist's main process passes it on to those that run the tests
        os.environ.pop("PYTHONWARNDEFAULTENCODING", None)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO, VOC and ImageFolder data set of the same 4 + 2 pictures of 96 px; do not change it."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=4, val=2, size=96, formats=("coco", "voc", "imagefolder"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _hosts_repeat_no_slow_steps() -> Iterator[None]:
    with hosts_repeat_no_slow_steps():
        yield


@pytest.fixture(autouse=True)
def _own_logger() -> None:
    """mmengine names a run by the second in which it starts: in the same second, the next test would get the previous
    test's logger, which writes to a captured stream that is closed."""
    MMLogger._instance_dict.clear()

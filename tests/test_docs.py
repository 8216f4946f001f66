"""The API reference has every registered type and every public name."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mmms_plugin

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def api(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield import_module("api")
    del sys.modules["api"]


def test_every_public_name_is_in_the_reference(api):
    names = {name for page in api.PAGES.values() for name in page.names()}
    documented = {api.home(name) for name in names}
    assert {cls for _, cls in api.registered().values()} - documented == set()
    packages = [module.name for module in pkgutil.iter_modules(mmms_plugin.__path__) if module.ispkg]
    public = {
        f"mmms_plugin.{package}.{name}"
        for package in packages
        for name in getattr(import_module(f"mmms_plugin.{package}"), "__all__", ())
    }
    assert len(public) > 30
    assert public - names == set()

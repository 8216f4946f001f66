"""A short run of the fuzzer over pickle programs; a longer one: ``python -m tests.fuzz.programs --count 5000``."""

import random

from mmms_plugin.weights import reader
from tests.fuzz.programs import Writer, check, run


def test_no_program_gets_past_the_allow_list():
    assert list(run(seed=0, count=400)) == []


def test_many_programs_are_sound_enough_to_be_loaded(monkeypatch):
    """Or the run above would show nothing."""
    loaded = []
    read = reader.read
    monkeypatch.setattr(reader, "read", lambda path: loaded.append(read(path)) or loaded[-1])
    assert [check(case, seed=1) for case in range(60)] == [None] * 60
    assert len(loaded) > 6
    assert Writer(random.Random("1")).program() == Writer(random.Random("1")).program()

"""A short run of the fuzzer over pictures; a longer one: ``python -m tests.fuzz.pictures --count 2000``."""

from tests.fuzz.pictures import run


def test_every_damaged_picture_is_sound_or_a_fault_in_a_line():
    assert list(run(seed=0, count=96, large=0)) == []

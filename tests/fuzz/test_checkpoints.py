"""A short run of the fuzzer over checkpoint files; a longer one: ``python -m tests.fuzz.checkpoints --count 5000``."""

from tests.fuzz.checkpoints import run


def test_no_damaged_checkpoint_gets_past_the_reader():
    assert list(run(seed=0, count=60)) == []

"""Figures of ``--verify``, ``--reference`` and ``--pattern`` against a recount, and references at their limits."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mmms_plugin.errors import UserError
from mmms_plugin.weights.verify import (
    Classifier,
    Reference,
    Statistics,
    check_tolerance,
    fixed_input,
    movement,
    read_reference,
    statistics,
)

NAMES = ["level0", "features.norm5", "output"]
IMAGE, MAP = np.zeros((1, 3, 4, 4), np.uint8), np.arange(6.0).reshape(1, 2, 3)


def reference(folder: Path, **arrays: np.ndarray) -> Reference:
    np.savez(folder / "in.npz", **arrays)  # type: ignore[arg-type]
    return read_reference(folder / "in.npz", NAMES)


def test_the_fixed_input_is_the_one_of_the_records() -> None:
    values = np.random.RandomState(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    assert torch.equal(fixed_input(), torch.from_numpy(values))


def test_outputs_go_by_their_long_and_short_names(tmp_path: Path) -> None:
    found = reference(tmp_path, input=IMAGE, **{"base.level0": MAP, "norm5": MAP.astype(np.int64), "output": MAP})
    assert list(found.outputs) == NAMES
    assert found.image.dtype == torch.float32
    assert all(torch.equal(value, torch.arange(6.0).view(1, 2, 3)) for value in found.outputs.values())


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"level0": MAP}, "it needs an array 'input'"),
        ({"input": IMAGE[0], "level0": MAP}, "it needs an array 'input'"),
        ({"input": IMAGE[:, :2], "level0": MAP}, "it needs an array 'input'"),
        ({"input": IMAGE[:0], "level0": MAP}, "it needs an array 'input'"),
        ({"input": IMAGE}, "it has no outputs; its outputs may be named level0, features.norm5, output"),
        ({"input": IMAGE, "evel0": MAP}, "it has 'evel0'; its outputs"),
        ({"input": IMAGE, "level0": MAP > 1}, "level0 holds bool, not real numbers"),
        ({"input": IMAGE, "level0": MAP * 1j}, "level0 holds complex128, not real numbers"),
        ({"input": IMAGE, "norm5": MAP, "features.norm5": MAP}, "two arrays for one output"),
        ({"input": IMAGE, **{f"a{i}": MAP for i in range(999)}}, "it has 'a0'"),
        ({"input": IMAGE, **{f"a{i}": MAP for i in range(1000)}}, "1001 arrays of"),
        ({"input": np.zeros((1, 3, 2000, 2001), bool), "level0": MAP}, "input holds bool"),
        ({"input": np.zeros((1, 3, 2000, 2001), np.int8), "level0": MAP}, "4002000 pixels, allowed are 4000000"),
    ],
)
def test_references_that_do_not_serve(arrays: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        reference(tmp_path, **arrays)
    assert words in str(caught.value)


def test_references_just_small_enough(tmp_path: Path) -> None:
    found = reference(tmp_path, input=np.zeros((1, 3, 2000, 2000), np.int8), level0=MAP)
    assert found.image.shape == (1, 3, 2000, 2000)
    stream = io.BytesIO()
    np.savez(stream, input=IMAGE, level0=MAP)
    with zipfile.ZipFile(stream) as archive:
        rest = sum(entry.file_size for entry in archive.infolist()[1:])
    for total in (10**9, 10**9 + 1):
        data = bytearray(stream.getvalue())
        place = data.index(b"PK\x01\x02") + 24  # the first entry's size, unpacked
        data[place : place + 4] = (total - rest).to_bytes(4, "little")
        (tmp_path / "in.npz").write_bytes(data)
        if total > 10**9:
            with pytest.raises(UserError, match="2 arrays of 1000000001 bytes; allowed are 1000 of 1000000000"):
                read_reference(tmp_path / "in.npz", NAMES)
        else:
            assert list(read_reference(tmp_path / "in.npz", NAMES).outputs) == ["level0"]


def test_statistics_are_those_of_the_values() -> None:
    values = [1.0, -5.0, 2.0, 4.0]
    outputs = {"level0": torch.tensor([values]), "output": torch.tensor([[1.0, 3.0]])}
    wanted = {"level0": torch.tensor([[1.0, -5.5, 2.25, 4.0]]), "output": torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)}
    level, logits = statistics(outputs, wanted)
    assert (level.name, level.shape, level.mean, level.absmax) == ("level0", (1, 4), 0.5, 5.0)
    assert level.std == pytest.approx(math.sqrt(sum((v - 0.5) ** 2 for v in values) / 3))
    mean = (1 - 5.5 + 2.25 + 4) / 4
    deviation = math.sqrt(sum((v - mean) ** 2 for v in (1, -5.5, 2.25, 4)) / 3)
    assert level.error == pytest.approx(0.5 / deviation)
    assert logits.error == pytest.approx(1 / math.sqrt(4.5))
    assert [row.error for row in statistics(outputs)] == [None, None]
    assert statistics(outputs, {"output": wanted["output"]})[0].error is None
    for name, other in (("level0", torch.ones(1, 4, 1, 1)), ("output", torch.ones(1, 3))):
        with pytest.raises(UserError, match=f"{name} has shape"):
            statistics(outputs, {name: other})


def rows(**errors: float | None) -> list[Statistics]:
    return [Statistics(name, (2,), 0.0, 1.0, 1.0, error) for name, error in errors.items()]


def test_the_worst_output_is_named() -> None:
    check_tolerance(rows(a=0.25, b=None, c=0.125), 0.25)  # at the tolerance is well
    for errors, words in (
        ({"a": 0.5, "b": 0.75, "c": 0.625, "d": 0.25}, "3 outputs differ, most of all b: 0.75 of its standard"),
        ({"a": 0.5, "b": math.nan, "c": 3.0}, "3 outputs differ, most of all b: nan"),
    ):
        with pytest.raises(UserError, match=words):
            check_tolerance(rows(**errors), 0.25)


def test_movement_is_a_root_mean_square() -> None:
    before, after = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])
    moved = movement({"a": before, "b": before}, {"a": after, "b": before})
    deviation = math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2)
    assert moved == {"a": pytest.approx(math.sqrt(5 / 3) / deviation), "b": 0}


def test_logits_are_called_by_their_exits() -> None:
    head = {"fc.weight": torch.ones(1)}
    assert Classifier(head).logits == ["output"]
    assert Classifier({}).logits == []
    assert Classifier(head, {"in_channels": [1, 2, 3]}).logits == ["exit1", "exit2", "exit3"]

"""Config, data and checkpoint compared before anything runs: what fits passes, what does not is one exact line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmms_plugin.config.check import check_datasets
from mmms_plugin.config.checkpoint import check_fits as check_read
from mmms_plugin.errors import UserError
from mmms_plugin.weights.files import read_checkpoint


def config_of(folder: Path, *counts: int, split: str = "train", **dataset: Any) -> dict[str, Any]:
    """A detector's config with a data set in ``folder``, and heads of these numbers of classes."""
    data = dict(type="CocoDataset", data_root=str(folder), ann_file="a.json", data_prefix=dict(img="in/")) | dataset
    heads = [dict(type="Head", num_classes=count) for count in counts]
    return {"model": dict(heads=heads), f"{split}_dataloader": dict(dataset=data)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``a.json`` with two categories, ``list.txt``, and a folder ``in``."""
    content = dict(images=[], annotations=[], categories=[{"name": "a"}, {"name": "b"}])
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "list.txt").touch()
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("counts", "dataset"),
    [
        ((2,), {}),
        ((2, 2), dict(metainfo=dict(classes=("x", "y")))),
        ((3,), dict(metainfo=dict(classes=("x", "y", "z")))),  # the config's own names go before those of the file
        ((), dict(metainfo=dict(classes=("x",)))),
        ((), {}),
        ((9,), dict(ann_file="list.txt")),
        ((9,), dict(ann_file="", data_prefix="in")),
        ((9,), dict(ann_file=None, data_root=None, data_prefix=dict(img_path="{folder}/in", seg="nowhere"))),
        ((9,), dict(type="mmpretrain.MultiLabelDataset")),
    ],
)
def test_data_that_fit_pass(counts, dataset, folder):
    prefix = dataset.get("data_prefix")
    if isinstance(prefix, dict):
        dataset = dataset | dict(data_prefix={key: path.format(folder=folder) for key, path in prefix.items()})
    check_datasets(config_of(folder, *counts, **dataset), ("train", "val"))


NAMED = dict(classes=("x",))


@pytest.mark.parametrize(
    ("counts", "dataset", "message"),
    [
        ((2,), dict(ann_file="b.json"), "train data: {folder}/b.json does not exist; give --coco-dir DIR to use "),
        ((2,), dict(ann_file=5), "train data: ann_file=5: must be a path"),
        ((2,), dict(ann_file=["a.json"]), "train data: ann_file=['a.json']: must be a path"),
        ((2,), dict(data_prefix=5), "train data: data_prefix=5: must be a path, or a dictionary of them"),
        ((2,), dict(ann_file="b.txt"), "train data: {folder}/b.txt does not exist; give --voc-dir DIR to use "),
        ((2,), dict(ann_file="", data_prefix="out"), "train data: {folder}/out does not exist; give --image-dir DIR "),
        ((2,), dict(ann_file="", data_prefix=None, data_root="{folder}/out"), "train data: {folder}/out does not "),
        ((80,), {}, "{folder}/a.json has 2 categories, the config's num_classes is 80: give --coco-dir DIR, which "),
        ((2, 80, 1), {}, "{folder}/a.json has 2 categories, the config's num_classes is 1 and 2 and 80: "),
        (
            (2,),
            dict(metainfo=NAMED),
            "the config's num_classes is 2, its data set names 1 class: set num_classes=1 in",
        ),
        ((1, 2), dict(metainfo=NAMED), "the config's num_classes is 1 and 2, its data set names 1 class"),
    ],
)
def test_data_that_do_not_fit_are_named(counts, dataset, message, folder):
    if "data_root" in dataset:
        dataset = dataset | dict(data_root=dataset["data_root"].format(folder=folder))
    config = config_of(folder, *counts, **dataset)
    with pytest.raises(UserError) as caught:
        check_datasets(config, ("train",))
    assert str(caught.value).startswith(message.format(folder=folder))
    check_datasets(config, ("val",))  # which it does not have


def network(classes: int = 2, **more: nn.Module) -> nn.ModuleDict:
    """Six tensors: of a backbone of two layers, and of a head."""
    return nn.ModuleDict({"body": nn.Linear(3, 4), "tail": nn.Linear(4, 5), "head": nn.Linear(5, classes), **more})


def saved(folder: Path, model: nn.Module, classes: tuple[str, ...] = (), drop: int = 0, prefix: str = "") -> str:
    """A checkpoint of a model, without its first ``drop`` tensors."""
    state = dict(list(model.state_dict().items())[drop:])
    meta = dict(dataset_meta=dict(classes=classes)) if classes else {}
    torch.save(dict(state_dict={f"{prefix}{key}": value for key, value in state.items()}, meta=meta), folder / "x.pth")
    return str(folder / "x.pth")


def check_fits(model: nn.Module, path: str, *more: Any) -> str | None:
    return check_read(model, read_checkpoint(path), *more)


def test_a_checkpoint_s_classes_are_compared_with_those_of_the_data(tmp_path):
    path = saved(tmp_path, network(), ("a", "b"), prefix="module.")
    assert check_fits(network(), path, "test", ("a", "b")) is None
    assert check_fits(network(), path, "test", None) is None
    remark = check_fits(network(), path, "test", ("c", "a"))
    assert remark == f"{path} was trained for the classes a, b; the data has c, a"
    assert check_fits(network(), path, "test", ("b", "a")) is None  # check_function refuses it
    assert "the data has b, a" in str(check_fits(network(), path, "start from", ("b", "a")))
    assert check_fits(network(), saved(tmp_path, network()), "test", ("b", "a")) is None


def test_heads_for_other_classes_start_fresh_and_are_refused_elsewhere(tmp_path):
    path = saved(tmp_path, network(3), ("a", "b", "c"))
    text = "head.weight is (3, 5), the model's (2, 5), there for 3 classes"
    remark = check_fits(network(), path, "start from")
    assert remark == f"{path}: 2 head tensors are for other classes and start fresh ({text})"
    with pytest.raises(UserError) as caught:
        check_fits(network(), path, "resume")
    assert str(caught.value).startswith(f"checkpoint {path}: made for other classes: {text}; use the data or config it")
    assert "there for" not in check_fits(network(), saved(tmp_path, network(3)), "start from")
    path = saved(tmp_path, network(3, more=nn.Linear(1, 1)))  # tensors beside the head's are another reason
    with pytest.raises(UserError, match="is not of this config's model: 2 tensors of other shape"):
        check_fits(network(), path, "test")


@pytest.mark.parametrize(
    ("drop", "more", "purpose", "outcome"),
    [
        (0, {}, "start from", None),
        (3, {}, "start from", "3 tensors of the model are not in it, 0 of its own unused"),  # half of six
        (4, {}, "start from", UserError("4 tensors missing (first: body.weight)")),
        (3, {}, "test", UserError("3 tensors missing (first: body.weight)")),
        (0, dict(more=nn.Linear(1, 1)), "resume", UserError("2 tensors unknown (first: more.weight)")),
        (0, dict(more=nn.Linear(1, 1)), "start from", "0 tensors of the model are not in it, 2 of its own unused"),
        (1, dict(tail=nn.Linear(9, 5)), "start from", "1 tensors of the model are not in it, 0 of its own unused"),
        (2, dict(tail=nn.Linear(9, 8)), "start from", UserError("2 tensors of other shape (tail.weight is (8, 9)")),
        (1, dict(head=nn.Linear(5, 3)), "test", UserError("2 tensors of other shape (head.weight is (3, 5)")),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_unless_half_of_it_fits(drop, more, purpose, outcome, tmp_path):
    path = saved(tmp_path, network(**more), drop=drop)
    if isinstance(outcome, UserError):
        with pytest.raises(UserError) as caught:
            check_fits(network(), path, purpose)
        assert str(caught.value).startswith(f"checkpoint {path} is not of this config's model: {outcome}")
    else:
        assert check_fits(network(), path, purpose) == (outcome and f"{path}: {outcome}")

"""Key maps on made-up tables, and what a file that fits nothing comes nearest to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmms_plugin.errors import UserError
from mmms_plugin.weights import mapping
from mmms_plugin.weights.files import Checkpoint
from mmms_plugin.weights.mapping import apply_table, compare, expected, part_configs, parts_fit
from mmms_plugin.weights.recognise import choose, recognise
from mmms_plugin.weights.tables import Arch, Rule, Table, load_table
from mmms_plugin.weights.tables.psconv import beneath_mask, join_published, unmasked_layers

NETWORK = dict(type="mmms_plugin.PSResNet", depth=18)
TABLE = Table(
    "made-up",
    "",
    {"a": Arch(NETWORK), "b": Arch(NETWORK, parts={"neck": {}, "head": {"type": "X"}}), "c": Arch(NETWORK)},
    (
        Rule(r"w(\d)", r"backbone.w\1"),
        Rule(r"other(\d)", r"backbone.w\1"),
        Rule(r"only", r"backbone.only", when=r"w1"),
        Rule(r"only", None, "w1 is not there"),
        Rule(r"never", None, "w1 is there", unless=r"w2"),
        Rule(r"flat(\d)", r"head.\1", apply="flatten"),
        Rule(r"kept(\d)", r"head.\1"),
        Rule(r"last(\d?)", r"head.\1", apply="background_last"),
        Rule(r"drop(\d?)", r"head.\1", apply="drop_background"),
        Rule(r"fc_cls\.weight", r"head.fc_cls", apply="background_last"),
    ),
    prefixes=("own.",),
)


def state(*keys: str) -> dict[str, Tensor]:
    return {key: torch.zeros(1) for key in keys}


def message(*keys: str) -> str:
    with pytest.raises(UserError) as caught:
        apply_table(TABLE, "a", state(*keys))
    return str(caught.value)


def test_prefixes_of_most_keys_are_taken_off() -> None:
    mapped = apply_table(TABLE, "a", state("module.own.w1", "module.own.w2"))
    assert (mapped.prefix, list(mapped.state)) == ("module.own.", ["backbone.w1", "backbone.w2"])
    assert mapped.mapped == {"module.own.w1": "backbone.w1", "module.own.w2": "backbone.w2"}
    assert message("module.w1", "module.w2", "x.w3").startswith("source made-up knows no key x.w3")
    assert message("module.w1", "x.w2").startswith("source made-up knows no key module.w1")  # only half of them
    assert message("w1", "module.w2", "module.w1") == "module.w1: a second tensor for backbone.w1"
    assert message("w1", "other1") == "other1: a second tensor for backbone.w1"


def test_unknown_keys_are_named_up_to_three() -> None:
    assert message("ab0", "ab1", "w1", "ab2") == "source made-up knows no key ab0, ab1, ab2"
    assert message("ab0", "ab1", "ab2", "ab3") == "source made-up knows no key ab0, ab1, ab2 and 1 more"
    assert message("conv1.weigth", "w1").endswith("conv1.weigth (nearest known: conv1.weight)")


def test_rules_count_under_their_conditions() -> None:
    assert apply_table(TABLE, "a", state("w1", "only")).mapped["only"] == "backbone.only"
    assert apply_table(TABLE, "a", state("w2", "only")).dropped == {"only": "w1 is not there"}
    assert apply_table(TABLE, "a", state("w1", "never")).dropped == {"never": "w1 is there"}
    assert message("w2", "never").startswith("source made-up knows no key never")


@pytest.mark.parametrize(
    ("key", "value", "classes", "wanted"),
    [
        ("flat0", torch.ones(2, 3, 1, 1), None, [2, 3]),
        ("flat0", torch.ones(2, 3, 1, 2), None, [2, 3, 1, 2]),
        ("flat0", torch.ones(2, 1, 1), None, [2, 1, 1]),
        ("flat0", torch.ones(()), None, []),
        ("drop0", torch.ones(12, 5), 3, [8, 5]),
        ("drop0", torch.ones(3), 3, [2]),
        ("drop0", torch.ones(4, 5), 3, [4, 5]),
        ("drop0", torch.ones(12, 5), None, [12, 5]),
        ("kept0", torch.ones(12, 5), 3, [12, 5]),
        ("kept0", torch.ones(()), 3, []),
    ],
)
def test_changes_of_shape(key: str, value: Tensor, classes: int | None, wanted: list[int]) -> None:
    beside = {} if classes is None else {"fc_cls.weight": torch.ones(classes, 2)}
    assert list(apply_table(TABLE, "a", {key: value, **beside}).state["head.0"].shape) == wanted


def test_the_background_goes_to_the_end_or_away() -> None:
    rows = torch.arange(6.0)
    found = apply_table(TABLE, "a", {"last1": rows, "drop2": rows, "fc_cls.weight": torch.ones(3, 1)}).state
    assert found["head.1"].tolist() == [1, 2, 3, 4, 5, 0]
    assert found["head.2"].tolist() == [2, 3, 4, 5]
    for key in ("last", "drop"):
        with pytest.raises(UserError, match=f"{key} is a single number; a tensor with a row for each class"):
            apply_table(TABLE, "a", {key: torch.ones(()), "fc_cls.weight": torch.ones(())})


def test_parts_have_the_classes_of_the_file() -> None:
    arch = Arch(NETWORK, parts={"head": {"num_classes": 9}, "decode_head": {"num_classes": 9}, "neck": {}})
    rows = {"head.exits.0.fc.weight": torch.ones(1, 2), "decode_head.conv_seg.weight": torch.ones(5, 2)}
    configs = {"head": {"num_classes": 1}, "decode_head": {"num_classes": 5}, "neck": {}}
    assert part_configs(arch, rows) == configs
    assert arch.parts["head"] == {"num_classes": 9}
    assert part_configs(arch, {})["head"] == {"num_classes": 9}
    assert part_configs(Arch(NETWORK), rows) == {}
    for empty in (torch.ones(()), torch.ones(0, 2)):
        with pytest.raises(UserError, match=r"decode_head\.conv_seg\.weight has no row for any class"):
            part_configs(arch, {"decode_head.conv_seg.weight": empty})


@pytest.mark.parametrize(
    ("arch", "keys", "fits"),
    [
        ("a", ["backbone.w"], True),
        ("a", ["backbone.w", "head.fc.weight"], True),  # a classifier may be there
        ("a", ["backbone.w", "neck.w"], False),
        ("b", ["backbone.w", "neck.w", "head.w"], True),
        ("b", ["backbone.w", "neck.w"], False),
    ],
)
def test_files_hold_the_parts_of_the_architecture(arch: str, keys: list[str], fits: bool) -> None:
    assert parts_fit(TABLE, TABLE.archs[arch], keys) is fits
    simple = Table("simple", "", {"a": Arch(NETWORK)}, ())
    assert parts_fit(simple, simple.archs["a"], ["backbone.w", "rpn_head.w"])  # nobody says what there may be


def test_comparison_by_key_and_shape() -> None:
    one, two = torch.Size([1]), torch.Size([2])
    found = compare(
        {"p.a": torch.ones(1), "p.b": torch.ones(1), "p.c": torch.ones(1), "q.d": torch.ones(1)},
        {"a": one, "b": two, "d": one, "e.num_batches_tracked": one},
        "p.",
    )
    assert found == {"missing": ["d"], "unknown": ["c"], "shape": ["b"]}


def parts(dense: tuple[int, ...], two: tuple[int, ...], four: tuple[int, ...]) -> dict[str, Tensor]:
    return {"dilation1": torch.ones(dense), "dilation2": torch.ones(two), "dilation4": torch.ones(four)}


@pytest.mark.parametrize(
    ("dense", "two", "four", "groups", "words"),
    [
        ((8, 8, 3, 3), (8, 2, 3, 3), (8, 2, 3, 3), 1, None),
        ((8, 8, 3, 3), (8, 2, 3, 3), (8, 2, 3, 3), 2, None),
        ((8, 8, 3, 3), (8, 2, 3, 3), (8, 2, 3, 3), 4, "do not belong together, 4 groups"),
        ((9, 8, 3, 3), (9, 2, 3, 3), (9, 2, 3, 3), 1, "do not belong together"),
        ((8, 8, 3, 3), (8, 2, 3, 3), (8, 1, 3, 3), 1, "do not belong together"),
        ((8, 8, 3, 3), (8, 1, 3, 3), (8, 2, 3, 3), 1, "do not belong together"),
        ((8, 8, 3), (8, 2, 3, 3), (8, 2, 3, 3), 1, "expected .C_out"),
        ((8, 8, 3, 3), (8, 2, 3, 3), (8, 2, 3), 1, "expected .C_out"),
        ((0, 8, 3, 3), (0, 2, 3, 3), (0, 2, 3, 3), 1, "expected .C_out"),
    ],
)
def test_published_parts_belong_together(dense, two, four, groups: int, words: str | None) -> None:
    if words is None:
        joined = join_published(parts(dense, two, four), {"groups": groups})
        assert [list(joined[name].shape) for name in ("weight", "extra_weight")] == [[8, 8, 3, 3], [8, 4, 3, 3]]
    else:
        with pytest.raises(ValueError, match=words):
            join_published(parts(dense, two, four), {"groups": groups})


def test_values_beneath_the_mask_are_found_with_the_largest() -> None:
    clean, small, large = torch.zeros(8, 4, 1, 1), torch.zeros(8, 4, 1, 1), torch.zeros(8, 4, 1, 1)
    assert beneath_mask(clean, 1).shape == (32,)
    small[0, 0], large[3, 1], large[7, 3] = 0.5, -2.0, 1.0
    layers = {"a.extra_weight": small, "b.extra_weight": clean, "c.extra_weight": large, "c.weight": large}
    assert unmasked_layers(layers, 1) == {"a": 0.5, "c": 2.0}


def resnet(depth: int = 18, prefix: str = "") -> dict[str, Tensor]:
    """Keys and shapes of a plain ResNet, 20 of whose 120 are counters."""
    shapes = expected(load_table("torchvision").archs[f"resnet{depth}"].backbone).shapes
    return {prefix + key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def chosen(state: dict[str, Tensor], source: str = "torchvision", arch: str = "resnet18") -> str:
    guess, others = choose(Checkpoint(Path("in.pth"), state), source, arch)
    assert not others or guess.fits
    return f"{guess} {guess.fits}"


def test_what_a_file_says_itself_comes_first() -> None:
    def first(prefix: str = "", source: str = "auto", **said) -> str:
        return str(recognise(Checkpoint(Path("in.pth"), resnet(50, prefix), **said), source)[0])

    assert first() == "torchvision resnet50"
    assert first("backbone.") == "openmmlab resnet50"
    assert first(meta={"mmdet_version": "2.0"}) == "openmmlab resnet50"
    assert first(beside=("mmcls_version",)) == "openmmlab resnet50"
    assert first(source="openmmlab") == "openmmlab resnet50"
    assert first(source="openmmlab", arch="resnet50_caffe") == "openmmlab resnet50_caffe"
    assert chosen(resnet(50), "auto", "ResNet50-Caffe") == "openmmlab resnet50_caffe True"
    guess, others = choose(Checkpoint(Path("in.pth"), resnet(50)), "auto", "resnet50")
    assert [str(other) for other in (guess, *others)] == [f"{s} resnet50" for s in ("torchvision", "timm", "openmmlab")]


@pytest.mark.parametrize("damage", ["missing", "shape", "unknown"])
def test_what_differs_in_half_of_its_keys_is_near_nothing(damage: str) -> None:
    def damaged(count: int) -> dict[str, Tensor]:
        found = resnet()
        weights = [key for key in found if not key.endswith("num_batches_tracked")]
        for key in weights[:count]:
            if damage == "missing":
                del found[key]
            elif damage == "shape":
                found[key] = torch.empty(7, device="meta")
        return {**found, **(state(*(f"x{i}" for i in range(count))) if damage == "unknown" else {})}

    least = {"missing": 40, "shape": 60, "unknown": 120}[damage]
    assert chosen(damaged(least - 1), arch="auto") == "torchvision resnet18 False"
    assert chosen(damaged(least - 1), "auto") == "torchvision resnet18 False"
    counted = f"its {len(damaged(least))} keys (first: {next(iter(damaged(least)))}) and shapes are not those of "
    for source, arch, wanted in (
        ("torchvision", "auto", "source torchvision"), ("auto", "resnet18", "any source and --arch resnet18"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            choose(Checkpoint(Path("in.pth"), damaged(least)), source, arch)
        assert f"{counted}{wanted}; give" in str(caught.value)


def test_given_names_are_taken_as_they_are() -> None:
    """What differs is said later."""
    assert chosen({}) == "torchvision resnet18 True"


def test_layers_elsewhere_draw_their_weights_while_a_network_is_built_without_memory():
    with mapping._weights_not_drawn():
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    torch.manual_seed(0)
    assert torch.equal(conv.weight, nn.Conv2d(3, 8, 3).weight)
    assert norm.weight.tolist() == [1] * 8
    assert "reset_parameters" not in vars(nn.Conv2d)

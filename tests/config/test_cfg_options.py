"""`--cfg-options`: what is misspelt or has no effect is named with the key that was meant."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmms_plugin.config.edit import apply_cfg_options
from mmms_plugin.config.files import load_config, with_preprocessor
from mmms_plugin.errors import UserError
from mmms_plugin.train.options import parse_cfg_options


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train_cfg.max_iterss", "train_cfg has no 'max_iterss'; did you mean max_iters?"),
        ("model.backbone.with_cpp", "model.backbone has no 'with_cpp'; did you mean with_cp?"),
        ("model.test_cfg.rcnn.score_thrr", "did you mean score_thr?"),
        ("default_hooks.loggerr.interval", "did you mean logger?"),
        ("optim_wraper.type", "the config has no 'optim_wraper'; did you mean optim_wrapper?"),
        ("optimizer.lr", "did you mean optim_wrapper.optimizer.lr?"),
        ("vis_backends.0.type", "has no effect; change visualizer.vis_backends.0.type"),
        ("train_pipeline.2.scale", "has no effect; change train_dataloader.dataset.pipeline.2.scale"),
        ("custom_imports_x.y", "did you mean custom_imports?"),
        ("test_dataloader.dataset.pipeline.9.type", "is a list of 4, allowed are 0 to 3"),
        ("test_dataloader.dataset.pipeline.4.type", "is a list of 4, allowed are 0 to 3"),
        ("test_dataloader.dataset.pipeline.x.type", "is a list of 4, allowed are 0 to 3"),
        ("train_pipeline", "so that changing it has no effect; change train_dataloader.dataset.pipeline"),
        ("default_hooks.checkpoint.save_lasst", "did you mean save_last?"),
        ("cfg", "the config has no 'cfg'; no part of OpenMMLab reads it"),
        ("qqqqqq.x", "the config has no 'qqqqqq'; no part of OpenMMLab reads it"),
        ("optim_wrapper.optimizer.qqqqq", "optim_wrapper.optimizer has no 'qqqqq'; allowed are amsgrad, betas, "),
        ("model.neck.num_outs.x", "TypeError"),
    ],
)
def test_a_key_without_effect_is_named_with_the_one_that_was_meant(key, message):
    with pytest.raises(UserError) as error:
        apply_cfg_options(load_config("nuclei/mask_rcnn_ps_r18_nuclei"), {key: 1})
    assert f"--cfg-options {key}: " in str(error.value) or message == "TypeError"
    assert message in str(error.value)


def test_a_dictionary_in_place_of_a_list_is_a_list_of_one():
    config = load_config("nuclei/mask_rcnn_ps_r18_nuclei")
    apply_cfg_options(config, {"param_scheduler": dict(type="PolyLR", end=9)})
    assert config.param_scheduler == [dict(type="PolyLR", end=9)]
    apply_cfg_options(config, {"param_scheduler": {"0": dict(end=8)}})  # mmengine's way into a list
    assert config.param_scheduler == [dict(type="PolyLR", end=8)]


def test_keys_that_have_an_effect_pass():
    config = load_config("mask_rcnn_ps_r50_fpn_1x")
    options = {
        "model.backbone.with_cp": True,  # an argument that the config does not give
        "model.backbone.dilation_pattern": (1, 2, 1, 4),
        "load_from": "x.pth",  # of the Runner
        "optim_wrapper.clip_grad": {"max_norm": 1},
        "optim_wrapper.optimizer.nesterov": True,
        "visualizer.vis_backends.0.type": "TensorboardVisBackend",
        "auto_scale_lr.enable": True,
    }
    assert apply_cfg_options(config, options) == []
    assert config.model.backbone.with_cp
    assert config.visualizer.vis_backends[0].type == "TensorboardVisBackend"
    remark = "--cfg-options dataset_type: dataset_type is a variable of the config file that no part of OpenMMLab reads"
    assert apply_cfg_options(config, {"dataset_type": "X"}) == [f"{remark}: no effect"]
    assert apply_cfg_options(config, {"default_hooks.checkpoint.save_last": False}) == []  # a class with **kwargs
    remark = "--cfg-options env_cfg.nonsense: new, env_cfg had no 'nonsense'"
    assert apply_cfg_options(config, {"env_cfg.nonsense": 1}) == [remark]


VARIABLES = """
size, empty, wide, deep = 7, [], [1, 2], dict(a=1)
window_size = 3
unused = [9]
model = dict(type="X", size=7, other=7, empty=[], parts=[wide, wide, dict(x=wide)], deep=deep)
visualizer = dict(wide=wide, more=wide)
log_processor = dict(window_size=3, other=3)
default_hooks = None
"""


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("size", "model.size"),  # not model.other: equal numbers alone prove nothing
        ("empty", "model.empty"),
        ("wide.1", "model.parts.0.1, model.parts.1.1, model.parts.2.x.1"),  # the first three
        ("deep.a", "model.deep.a"),
        ("window_size", "log_processor.window_size"),
        ("unused", None),
    ],
)
def test_a_variable_is_refused_with_the_places_that_it_went_to(key, places):
    config = Config.fromstring(VARIABLES, ".py")
    if places is None:
        (remark,) = apply_cfg_options(config, {key: 1})
        assert remark.endswith("is a variable of the config file that no part of OpenMMLab reads: no effect")
        return
    with pytest.raises(UserError) as error:
        apply_cfg_options(config, {key: 1})
    assert str(error.value).endswith(f"so that changing it has no effect; change {places}")


def test_what_a_key_may_replace_or_remove():
    config = load_config("mask_rcnn_ps_r50_fpn_1x")
    options = {"optim_wrapper.optimizer.amsgrad": True, "optim_wrapper.optimizer.type": "Adam"}  # the type comes first
    options |= {"model.backbone._delete_": True}
    assert apply_cfg_options(config, options) == []
    assert config.optim_wrapper.optimizer.amsgrad
    with pytest.raises(UserError, match=r"optim_wrapper\.optimizer has no 'nesterov'; allowed are amsgrad, "):
        apply_cfg_options(config, {"optim_wrapper.optimizer.nesterov": True})
    last = len(config.test_dataloader.dataset.pipeline) - 1
    assert apply_cfg_options(config, {f"test_dataloader.dataset.pipeline.{last}.type": "X"}) == []


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("a=[dict(type='EMAHook',begin_iter=1)]", [{"type": "EMAHook", "begin_iter": 1}]),
        ("a=dict(type=mmms_plugin.ShapeAdaptorHook, b=(1, -2.5), c=[x, 'y'], d=dict(), e=None, f=true)",
         {"type": "mmms_plugin.ShapeAdaptorHook", "b": (1, -2.5), "c": ["x", "y"], "d": {}, "e": None, "f": True}),
        ("a=dict(b=1)", {"b": 1}),
        ("a=[dict(b=1), dict(b={c: [2]})]", [{"b": 1}, {"b": {"c": [2]}}]),
        ("a={'b': 1, c: [x]}", {"b": 1, "c": ["x"]}),
        ("a=[{'type': 'EMAHook'}, {b: {}}]", [{"type": "EMAHook"}, {"b": {}}]),
        ("a={}", {}),
        ("a=ckpt_{}.pth", "ckpt_{}.pth"),
        ("a={}.pth", "{}.pth"),
        ("a=iter_{0:06d}.pth", "iter_{0:06d}.pth"),
        ("a={0:06d}.pth", "{0:06d}.pth"),
        ("a=1,2", [1, 2]),
        ("a=[(1,2),(3,x)]", [(1, 2), (3, "x")]),
        ("a=b=c", "b=c"),
        ("a=", ""),
    ],
)  # fmt: skip
def test_values_are_read_as_mmengine_does_and_dictionaries_too(item, value):
    assert parse_cfg_options([item]) == {"a": value}


@pytest.mark.parametrize(
    "text",
    [
        "foo(1,2)", "[a,b(1,2)]", "[1,2", "(1,[2)", "dict(", "dict(1,2)", "dict(**x)", "dict(a=foo(1))", "dict(a=1)+1",
        "dict(a=[1 for x in y])", "[dict(a=1),foo(1,2)]", "dict(a=" * 500 + ")" * 500, "dict(a=\\0)",
        "{'a': 1, 'b'}", "[{a: 1}, {**b}]", "{[1]: 2}", "{a: b c}", "{1: 2}",
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_one_line(text):
    with pytest.raises(UserError, match=r"^--cfg-options x.a=.*: cannot be read; allowed are numbers, texts") as caught:
        parse_cfg_options([f"x.a={text}"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^--cfg-options x: expected KEY=VALUE$"):
        parse_cfg_options(["x"])


@pytest.mark.parametrize("of_model", [True, False])
def test_normalisation_beside_the_model_is_refused_where_the_model_has_its_own(of_model):
    """Runners use the model's, so that the other would change nothing."""
    config = Config(dict(data_preprocessor=dict(mean=[1, 2, 3]), model=dict(type="X")))
    if not of_model:
        assert apply_cfg_options(config, {"data_preprocessor.mean": [4, 5, 6]}) == []
        return
    with pytest.raises(UserError, match=r"has no effect; change model\.data_preprocessor\.mean$"):
        apply_cfg_options(with_preprocessor(config), {"data_preprocessor.mean": [4, 5, 6]})
    assert apply_cfg_options(config, {"model.data_preprocessor.mean": [4, 5, 6]}) == []
    assert config.model.data_preprocessor.mean == [4, 5, 6]

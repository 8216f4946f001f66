"""``mmms predict``: a trained model on new pictures, one after another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from mmms_plugin.config.channels import channels_explained
from mmms_plugin.config.check import user_fault
from mmms_plugin.config.checkpoint import check_fits, check_function, state_of, use_components
from mmms_plugin.config.edit import (
    apply_cfg_options,
    class_count_owners,
    data_metainfo,
    leaf_datasets,
    loading_files,
    set_num_classes,
)
from mmms_plugin.config.files import load_config, with_preprocessor
from mmms_plugin.config.function import Function
from mmms_plugin.config.image_size import set_image_size
from mmms_plugin.config.tiles import tiles_of, without_tiles
from mmms_plugin.data.pictures import none_readable, problem_of, quiet_libraries
from mmms_plugin.devices import usable_device
from mmms_plugin.errors import UserError, counted, first_line, one_line
from mmms_plugin.files import check_folder, make_folder, unfinished, write_text
from mmms_plugin.inference import optimize_for_inference
from mmms_plugin.registry import use_scope
from mmms_plugin.report.drawing import Style
from mmms_plugin.report.terminal import say
from mmms_plugin.train.inputs import Input, find_inputs
from mmms_plugin.train.launch import drop_initial_weights
from mmms_plugin.train.options import ModelOptions, PredictOptions, PredictorOptions
from mmms_plugin.train.predictions import DRAWN, LOWEST_SCORE, ObjectResults, Results
from mmms_plugin.train.processes import together
from mmms_plugin.train.score_rules import ScoreRules
from mmms_plugin.train.stopping import AGAIN, PICTURES, peers_watched
from mmms_plugin.train.tasks import task_of
from mmms_plugin.train.tiling import TiledDetector, Watch
from mmms_plugin.weights.files import Checkpoint, read_checkpoint
from mmms_plugin.weights.trusted import class_colours, class_names

T = TypeVar("T")
LISTED = 10  # skipped pictures that the terminal shows; the file has all


class Predictor:
    """A trained model for single pictures.

    Args:
        options: config, checkpoint, and changes to them.
        labels: write names and scores into drawings.
        optimize: run a copy of the model that is faster on a CPU.

    Raises:
        UserError: config and checkpoint do not fit each other.
    """

    def __init__(self, options: PredictorOptions, labels: bool = True, optimize: bool = True) -> None:
        self.options, self.optimize, self._saved = options, optimize, read_checkpoint(options.checkpoint)
        self.config = config_of(options, self._saved.meta)
        self.task = task_of(self.config)
        self.tiling, self._batch = tiles_of(self.config, options.tiling)
        if self.tiling.tiles is not None:
            self.task.check_tiles()
        classes, palette = classes_of(self.config, self._saved.meta)
        self.style = Style.of(classes, palette, labels)
        self.rules: ScoreRules | None = None  # on the scores of objects
        self._components = use_components(self.config.model, self._saved)

    def build(self) -> list[str]:
        """Build the model, which takes seconds; return remarks for the user.

        Raises:
            UserError: the weights do not fit, or there is no such device.
        """
        options, own = self.options, Function.of(self.config)
        self._model = build_model(self.config, self._saved, options.device)
        other = check_function(self._model, own, self._saved, options.force, from_file=options.config is None)
        if self.optimize:
            self._model = optimize_for_inference(self._model)
        self._pipeline = picture_pipeline(self.config)
        del self._saved
        self._load: Any = self._pipeline
        if self.tiling.tiles is not None:
            first, *others = self._pipeline.transforms
            self._load, self._pipeline = first, Compose(others)
        return list(filter(None, (self._components, other)))

    def prepare(self, path: Path) -> Any:
        """A picture as the model takes it.

        Raises:
            UserError: it cannot be read, or its transforms fail: one of 1 x 60000 px may be resized to 0 px.
        """
        if problem := problem_of(path, self.options.max_pixels):
            raise UserError(problem)
        return user_fault("the test pipeline", partial(self._load, {"img_path": str(path), "img_id": 0}))

    def pixels(self, path: Path, prepared: Any) -> np.ndarray:
        """The pixels of a picture's file, RGB [height, width, 3], 8 bits; those that were prepared, if they are whole.

        Args:
            path: the file.
            prepared: the same picture.
        """
        whole = prepared["img"] if self.tiling.tiles is not None else None
        if whole is not None and whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3:
            return whole[..., ::-1]
        return np.asarray(mmcv.imread(str(path), channel_order="rgb"))

    def __call__(self, prepared: Any, score: float = 0.0, watch: Watch = iter) -> Any:
        """The model's data sample for a prepared picture.

        Args:
            prepared: of ``prepare``.
            score: lowest score of the objects that tiles are merged from.
            watch: as of `TiledDetector`.
        """
        step: Any = self._model.test_step
        with torch.no_grad(), channels_explained(self._model, self.config.model):
            if self.tiling.tiles is None:
                (sample,) = step(pseudo_collate([prepared]))
            else:
                least = 0.0 if self.rules else score  # rules change the scores first
                detector = TiledDetector(step, self._pipeline, self.tiling, self._batch, least, watch)
                info = {key: value for key, value in prepared.items() if key != "img"}
                shape = prepared["img"].shape[:2]
                objects = detector(prepared["img"], info)
                sample = BaseDataElement(metainfo=dict(ori_shape=shape), pred_instances=objects)
        return self.rules(sample, self.style.classes) if self.rules else sample


def predict(options: PredictOptions) -> None:
    """Keep and draw a model's predictions for pictures; unreadable pictures are listed and skipped.

    Raises:
        UserError: config, checkpoint and arguments do not fit each other, or no picture could be read.
        RunError: another process of the run has ended.
    """
    with peers_watched(AGAIN, PICTURES), together(options.launcher):
        _predict(options)


def _predict(options: PredictOptions) -> None:
    predictor = Predictor(options, options.labels, options.optimize)
    predictor.rules = rules_of(predictor, options.calibration, options.thresholds)
    inputs = find_inputs(options.inputs, options.out)
    check_folder(options.out)
    score = predictor.rules.least_score(options.score) if predictor.rules else options.score
    results = predictor.task.results(options.out, predictor.style, options.draw, score)
    sources = {source.path for source in inputs}
    for path in (path for source in inputs for path in results.outputs(source)):
        if path.resolve() in sources:
            raise UserError(f"--out {options.out}: {path} is one of the pictures and would be replaced")
    remarks = []
    if isinstance(results, ObjectResults) and options.draw and results.score < LOWEST_SCORE:
        remarks.append(f"--score {results.score}: drawing many objects takes a while; --no-draw leaves it out")
    remarks += predictor.build()
    outcomes = in_order(_outcomes(predictor, results, inputs), options.out)
    if not is_main_process():
        with quiet_libraries():
            next(outcomes, None)  # there is none
        return
    for remark in remarks:
        print(one_line(remark), file=sys.stderr)
    skipped: dict[Path, str] = {}
    with results, quiet_libraries():
        for source, (entry, reason) in zip(inputs, outcomes, strict=True):
            if reason:
                skipped[source.path] = reason
            else:
                results.add(entry)
        if len(skipped) == len(inputs):
            raise UserError(none_readable(skipped))
    drawings = f"; drawings in {options.out / DRAWN}" if options.draw else ""
    say(f"{counted(len(inputs) - len(skipped), 'picture')}: {results.summary()}{drawings}")
    list_skipped(options.out / "skipped.txt", skipped)


def rules_of(predictor: Predictor, calibration: str | Path | None, thresholds: str | Path | None) -> ScoreRules | None:
    """The rules on scores of ``--calibration`` and ``--thresholds``; raises UserError for other files or models."""
    return ScoreRules.read(calibration, thresholds, predictor.style.classes, predictor.task.keeper is ObjectResults)


def _outcomes(predictor: Predictor, results: Results, inputs: Sequence[Input]) -> Iterator[tuple[Any, str]]:
    """Of each picture of this process: its entry in the results, and '' or why it is skipped."""
    alone = len(inputs) == 1 and predictor.tiling.tiles is not None
    watch = partial(with_progress, noun="batches of tiles") if alone else iter
    own = share(inputs)
    for source in own if alone else with_progress(own, whole=len(inputs)):
        try:
            packed = predictor.prepare(source.path)
        except UserError as error:
            yield None, str(error)
        else:
            pixels = predictor.pixels(source.path, packed)
            yield results.entry(source, pixels, predictor(packed, results.score, watch)), ""


def share(items: Sequence[T]) -> Sequence[T]:
    """Every n-th of the items, for each of the n processes of a run."""
    return items[get_rank() :: get_world_size()]


def in_order(values: Iterable[Any], folder: Path) -> Iterator[Any]:
    """Values that the processes of a run make for their shares, in the order of the whole, for the first process.

    They pass through files in ``folder``, which are removed, and are what JSON makes of them. The other processes get
    none, once all are made.

    Raises:
        UserError: the processes do not share ``folder``.
    """
    if get_world_size() == 1:
        yield from values
        return
    with ExitStack() as stack:
        place = [str(stack.enter_context(unfinished(make_folder(folder)))) if is_main_process() else ""]
        broadcast_object_list(place)
        if not Path(place[0]).is_dir():
            raise UserError(f"--out {folder}: the processes see different folders; give one that their machines share")
        files = [Path(place[0], f"{rank}.jsonl") for rank in range(get_world_size())]
        with files[get_rank()].open("w", encoding="utf-8") as file:
            for value in values:
                file.write(json.dumps(value) + "\n")
        barrier()
        if is_main_process():
            lines = zip_longest(*(stack.enter_context(path.open(encoding="utf-8")) for path in files))
            yield from map(json.loads, filter(None, chain.from_iterable(lines)))


def list_skipped(listing: Path, skipped: Mapping[Any, str]) -> None:
    """Write the pictures that were skipped into a file, in place of that of an earlier run, and report them.

    Args:
        listing: the file; there is none if no picture was skipped.
        skipped: picture -> reason.
    """
    listing.unlink(missing_ok=True)
    if skipped:
        lines = [f"{picture}: {reason}" for picture, reason in skipped.items()]
        write_text(listing, "\n".join(lines) + "\n")
        more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        say(f"{len(lines)} skipped, all in {listing}: {'; '.join(lines[:LISTED])}{more}")


def config_of(options: ModelOptions, meta: Mapping[str, Any]) -> Config:
    """The config that the options name, with their changes.

    Args:
        options: of the command line.
        meta: the checkpoint's metadata, which may contain a config.

    Raises:
        UserError: there is no config, or it has no model or no test pipeline, or its host is not installed.
    """
    if options.config is not None:
        config = load_config(options.config)
    elif not options.trust_checkpoint_config:
        raise UserError(
            "CONFIG is missing: give a config before the checkpoint, or --trust-checkpoint-config if you trust the "
            "checkpoint as you would trust a program"
        )
    else:
        text = meta.get("cfg")
        if not isinstance(text, str):
            raise UserError(f"checkpoint {options.checkpoint}: it contains no config (meta.cfg), give CONFIG")
        try:
            config = with_preprocessor(Config.fromstring(text, ".py"))
        except Exception as error:  # a config is code and may raise anything
            raise UserError(f"checkpoint {options.checkpoint}: its config: {first_line(error)}") from error
    if "model" not in config or not leaf_datasets(config.get("test_dataloader")):
        raise UserError(f"config {options.config or options.checkpoint}: it has no model, or no test_dataloader")
    if options.image_size:
        set_image_size(config._cfg_dict, options.image_size)
    apply_cfg_options(config, options.cfg_options)
    task_of(config).check_installed()
    return config


def classes_of(config: Config, meta: Mapping[str, Any]) -> tuple[tuple[str, ...], Any]:
    """Class names and palette of the checkpoint, or else of the config's data set; sets the heads to their number."""
    use_scope(config.get("default_scope") or "mmengine")
    metainfo = data_metainfo(config, "test")
    trained = class_names(meta)
    names = trained or metainfo.get("classes") or metainfo.get("CLASSES")
    counts = [part["num_classes"] for part in class_count_owners(config.model)]
    names = (names,) if isinstance(names, str) else tuple(str(name) for name in names or ())
    if not names or (
        not trained and counts and len(names) not in counts
    ):  # of the type of the data set, such as COCO's
        names = tuple(f"class {k}" for k in range(max(counts, default=1)))
    if trained and set(counts) != {len(names)}:
        set_num_classes(config.model, len(names))
    return names, class_colours(meta) or metainfo.get("palette")


def build_model(config: Config, checkpoint: Checkpoint, device: str | None) -> nn.Module:
    """The model with the checkpoint's weights, in eval mode.

    Raises:
        UserError: the weights do not fit, or there is no such device.
    """
    drop_initial_weights(config)
    model = user_fault("config", lambda: revert_sync_batchnorm(MODELS.build(config.model)))
    check_fits(model, checkpoint, "test")
    model.load_state_dict(
        state_of(checkpoint), strict=False
    )  # check_fits has compared them; batch counters may be missing
    return model.to(usable_device(device)).eval()


def picture_pipeline(config: Config) -> Compose:
    """The test pipeline, without the steps that read annotations."""
    steps = leaf_datasets(config.test_dataloader)[0].get("pipeline") or config.get("test_pipeline") or []
    steps = loading_files(without_tiles(steps))
    kept = [step for step in steps if "Annotations" not in step["type"]]
    return user_fault("test pipeline", lambda: Compose(kept))


def with_progress(
    inputs: Sequence[T], doing: str = "predicting", whole: int | None = None, noun: str = "pictures"
) -> Iterator[T]:
    """The inputs, with rich's bar on standard error, or without a terminal a line after every tenth of them.

    Args:
        inputs: for this process.
        doing: the bar's title.
        whole: number of inputs of all processes, which the first process takes to be as far as itself.
        noun: what they are.
    """
    if not is_main_process():
        yield from inputs
        return
    console, whole = Console(stderr=True), whole or len(inputs)
    if not console.is_terminal:
        for i, source in enumerate(inputs, 1):
            yield source
            if whole > 10 and i % -(-len(inputs) // 10) == 0:
                print(f"{whole * i // len(inputs)} of {whole} {noun}", file=sys.stderr)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn(doing), *columns, console=console, transient=True) as bar:
        yield from bar.track(inputs)

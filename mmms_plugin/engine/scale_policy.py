"""What ``mmms scale-policy`` does: run a checkpoint on pictures and report what it does with scale."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from rich.console import Console
from torch import Tensor, nn

from mmms_plugin.analysis.receptive_field import ReceptiveField, measure
from mmms_plugin.analysis.scale_policy.dilations import dilation_shares
from mmms_plugin.analysis.scale_policy.meter import PolicyMeter
from mmms_plugin.analysis.scale_policy.report import Measured, write_report
from mmms_plugin.analysis.scale_policy.table import Row, Table, rows_of
from mmms_plugin.analysis.shapes import NetworkShape
from mmms_plugin.backbones.shape_plan import ShapedNetwork
from mmms_plugin.data.pictures import quiet_libraries
from mmms_plugin.engine.building import user_fault
from mmms_plugin.engine.checks import read_state_dict
from mmms_plugin.engine.policy_pictures import Source, find_sources
from mmms_plugin.engine.policy_sizes import compare_sizes
from mmms_plugin.engine.predict import (
    LISTED,
    PredictOptions,
    build_model,
    classes_of,
    config_of,
    picture_pipeline,
    problem_of,
    with_progress,
)
from mmms_plugin.engine.shapes import network_shape
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import check_folder, make_folder, write_text

PROGRESS, PROGRESS_COMPARED = "progress.json", "progress_compared.json"  # what an interrupted run goes on from
SECONDS = 10.0  # between two saves of the progress
FIELD_SIDE = 512  # px; larger pictures are cropped where receptive fields are measured


@dataclass
class PolicyOptions:
    """What the command line says; see ``mmms scale-policy --help``.

    Attributes:
        images: folder of pictures; their classes are the names of its sub-folders. coco_dir: data set; one of both.
        split: of the data set. fields: pictures that receptive fields are measured on, 0 for none.
        threshold: confidence at which a picture leaves a network with several exits.
        compare: checkpoint of a second network. compare_config: its config, None for the same.
    """

    config: str
    checkpoint: str
    out: Path
    images: str | None = None
    coco_dir: str | None = None
    split: str = "val"
    fields: int = 4
    threshold: float = 0.9
    device: str | None = None
    image_size: tuple[int, int] | None = None
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    compare: str | None = None
    compare_config: str | None = None

    def second(self) -> PolicyOptions | None:
        """Of the network that is compared, None where none is."""
        if self.compare is None:
            return None
        return replace(self, config=self.compare_config or self.config, checkpoint=self.compare)


def scale_policy(options: PolicyOptions) -> None:
    """Measure, and write numbers, figures and page; pictures that cannot be read are listed and skipped.

    Raises:
        UserError: config, checkpoint and arguments do not fit each other, or no picture could be read.
    """
    sources = find_sources(options.images, options.coco_dir, options.split, options.out)
    check_folder(options.out)
    run, second = _load(options, PROGRESS), options.second()
    other = None if second is None else _load(second, PROGRESS_COMPARED)
    make_folder(options.out)
    with quiet_libraries():
        table, skipped = run.measure_all(sources)
        fields = run.fields(sources, skipped)
        compared = None if other is None else other.measure_all(sources)[0]
    paths = {source.name: source.path for source in sources}
    measured = Measured(table, paths, dilation_shares(run.model), fields, _shape(options, run.model), compared)
    if second is not None:
        measured = replace(measured, other_title=_title(second))
    written = write_report(options.out, _title(options), measured)
    for name in (PROGRESS, PROGRESS_COMPARED):
        (options.out / name).unlink(missing_ok=True)
    _tell(options, measured, type(run.model.backbone).__name__, skipped, written)
    if second is not None and options.coco_dir and not run.classifies:
        compare_sizes([_as_predict(one) for one in (options, second)], Path(options.coco_dir), options.split, sources)


def _load(options: PolicyOptions, progress: str) -> _Run:
    state, meta = read_state_dict(options.checkpoint)
    config = config_of(_as_predict(options), meta)
    classes, _ = classes_of(config, meta)
    model = build_model(config, state, options.checkpoint, options.device)
    return _Run(options, config, model, classes, options.out / progress)


def _as_predict(options: PolicyOptions) -> PredictOptions:
    return PredictOptions(
        options.config, options.checkpoint, (), options.out, image_size=options.image_size,
        cfg_options=options.cfg_options,
    )  # fmt: skip


def _title(options: PolicyOptions) -> str:
    return one_line(f"{Path(options.config).stem}, {Path(options.checkpoint).name}")


class _Run:
    """One model on many pictures, one after the other."""

    def __init__(
        self, options: PolicyOptions, config: Config, model: nn.Module, classes: Sequence[str], progress: Path
    ) -> None:
        self.progress = progress
        self.options, self.model, self.classes = options, model, classes
        self.pipeline: Compose = picture_pipeline(config)
        self.meter = PolicyMeter(model)
        self.classifies = str(config.model.get("type")).endswith("ImageClassifier")
        exits = getattr(getattr(model, "head", None), "exits", None)
        if self.meter.blocks:
            self.table = Table("scale policy", self.meter.blocks)
        elif exits is not None and len(exits) > 1:
            names = tuple(f"exit {i + 1}" for i in range(len(exits)))
            self.table = Table("exits", names, threshold=options.threshold)
        else:
            self.table = Table("none", ())

    def measure_all(self, sources: Sequence[Source]) -> tuple[Table, dict[str, str]]:
        """The table of all pictures, and why others were skipped; goes on where an interrupted run stopped."""
        if not (self.table.columns or (self.classifies and self.options.compare)):
            return self.table, {}
        done, skipped = self._earlier()
        rows = {row.name: row for row in done}
        left = [source for source in sources if source.name not in rows and source.name not in skipped]
        if rows:
            print(f"going on after {len(rows)} of {len(sources)} pictures", file=sys.stderr)
        saved = time.monotonic()
        try:
            with self.meter if self.meter.blocks else nullcontext():
                for source in with_progress(left, "measuring"):
                    if problem := problem_of(source.path):
                        skipped[source.name] = problem
                    else:
                        rows[source.name] = self._row(source)
                    if time.monotonic() - saved > SECONDS:
                        self._save(rows, skipped)
                        saved = time.monotonic()
        finally:
            self._save(rows, skipped)
        if not rows:
            name, reason = next(iter(skipped.items()))
            raise UserError(f"none of the {len(sources)} pictures can be read; {name}: {reason}")
        order = [rows[source.name] for source in sources if source.name in rows]
        return Table(self.table.kind, self.table.columns, order, self.table.threshold), skipped

    def _row(self, source: Source) -> Row:
        batch = self._batch(source)
        predicted, right, values = "", None, None
        with torch.no_grad():
            if self.classifies:
                (sample,) = self.model.test_step(batch)  # type: ignore[operator]
                labels = [self._class_name(int(label)) for label in sample.pred_label.reshape(-1)]
                predicted = "; ".join(labels)
                known = source.classes and set(source.classes) & set(self.classes)
                right = bool(set(labels) & set(source.classes)) if known else None
                if self.table.kind == "exits":
                    values = sample.exit_scores.double().amax(1).cpu().tolist()
            else:
                self.model.backbone(self._inputs(batch))  # type: ignore[operator,union-attr]
        scores = self.meter.take()[0].tolist() if self.meter.blocks else values or ()
        if not all(math.isfinite(score) for score in scores):
            raise UserError(f"{source.name}: the network's activations are not finite; did its training diverge?")
        return Row(source.name, tuple(scores), source.classes, source.sides, predicted, right)

    def _class_name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def _batch(self, source: Source) -> Any:
        sample = {"img_path": str(source.path), "img_id": 0}
        return user_fault("test pipeline", lambda: pseudo_collate([self.pipeline(sample)]))

    def _inputs(self, batch: Any) -> Tensor:
        preprocess: Any = self.model.data_preprocessor
        return preprocess(batch, False)["inputs"]

    def fields(self, sources: Sequence[Source], skipped: Mapping[str, str]) -> list[ReceptiveField]:
        """Receptive fields, measured on the middle of the first pictures that can be read."""
        pictures: list[Tensor] = []
        for source in sources:
            if len(pictures) >= self.options.fields:
                break
            if source.name not in skipped and not problem_of(source.path):
                batch = self._batch(source)
                pictures.append(self._inputs(batch)[0])
        if not pictures:
            return []
        sides = [min(FIELD_SIDE, *(picture.shape[axis] for picture in pictures)) for axis in (-2, -1)]
        return measure(self.model.backbone, [_middle(p, *sides) for p in pictures])  # type: ignore[arg-type]

    # ---- interrupted runs
    def _key(self) -> str:
        """Of everything that the rows depend on."""
        digest = blake2b(digest_size=16)
        for value in self.model.state_dict().values():
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        one = self.options
        digest.update(repr((self.table.columns, self.pipeline, self.classes, one.images, one.coco_dir, one.split,
                            one.image_size, one.cfg_options)).encode())  # fmt: skip
        return digest.hexdigest()

    def _earlier(self) -> tuple[list[Row], dict[str, str]]:
        self.key = self._key()
        try:
            content = json.loads(self.progress.read_text(encoding="utf-8"))
            if content["key"] != self.key:
                return [], {}
            skipped = {str(name): str(reason) for name, reason in content["skipped"].items()}
            return rows_of(content["rows"], len(self.table.columns)), skipped
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [], {}

    def _save(self, rows: Mapping[str, Row], skipped: Mapping[str, str]) -> None:
        table = Table(self.table.kind, self.table.columns, list(rows.values()))
        content = dict(key=self.key, skipped=dict(skipped), rows=table.to_json()["rows"])
        write_text(self.progress, json.dumps(content))


def _middle(picture: Tensor, height: int, width: int) -> Tensor:
    top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
    return picture[:, top : top + height, left : left + width]


def _shape(options: PolicyOptions, model: nn.Module) -> NetworkShape | None:
    backbone = model.backbone
    if not isinstance(backbone, ShapedNetwork):
        return None
    width, height = options.image_size or (224, 224)
    return network_shape(_title(options), backbone, (height, width))


def _tell(
    options: PolicyOptions, measured: Measured, backbone: str, skipped: Mapping[str, str], written: Sequence[str]
) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    table = measured.table
    if table.columns:
        console.print(f"{len(table.rows)} pictures, {table.kind}: {len(table.columns)} columns")
    elif not measured.dilations and measured.shape is None and measured.other is None:
        console.print(
            f"{backbone} has no multi-scale part (no Elastic block of lower resolution, no PSConv layer, no Shape "
            "Adaptor, no second exit): only its receptive fields are reported"
        )
    listing = options.out / "skipped.txt"
    listing.unlink(missing_ok=True)
    if skipped:
        lines = [f"{name}: {reason}" for name, reason in skipped.items()]
        write_text(listing, "\n".join(lines) + "\n")
        more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        console.print(f"{len(lines)} skipped, all in {listing}: {'; '.join(lines[:LISTED])}{more}")
    console.print(f"written to {options.out}: {', '.join(written)}, figures")

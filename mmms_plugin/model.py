"""``Model``: training, testing, prediction and export from Python, by the commands' functions and options."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmms_plugin.commands import export
from mmms_plugin.commands.predict import SUFFIXES
from mmms_plugin.commands.test import Options as EvaluateOptions
from mmms_plugin.config.files import find_config
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.files import checkpoint_file
from mmms_plugin.options import from_values, python_names
from mmms_plugin.train.options import PredictorOptions, ScoreOptions, TrainOptions

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from mmms_plugin.report.run_results import RunResults
    from mmms_plugin.size_ap.results import SizeAPResults
    from mmms_plugin.train.predict import Predictor
    from mmms_plugin.train.prediction import Prediction

AnyPicture: TypeAlias = "str | Path | np.ndarray | Image.Image"
NO_CHECKPOINT = "the model has no weights yet: train it, or give Model(config, checkpoint)"


class Model:
    """A config and, once there is one, its checkpoint.

    Methods take the options of the commands as keywords, ``batch_size=4`` for ``--batch-size 4``; ``mmms train --help``
    lists them. What a command refuses in one line is a UserError, which is a ValueError.

    Args:
        source: a config, as for ``mmms train``, or a checkpoint.
        checkpoint: weights of the config's model.
        trust_checkpoint_config: use the config that is saved in the checkpoint, which is code and is run: only for
            checkpoints that you trust. A checkpoint alone needs it.

    Attributes:
        config: the config's name or file; None for the checkpoint's own.
        checkpoint: the file with the weights, after a training its best one, or else its last.

    Raises:
        UserError: no such config or checkpoint.

    Example:
        >>> from mmms_plugin import Model
        >>> model = Model("mask_rcnn_ps_r50_fpn_1x")
        >>> results = model.train("my_data", epochs=24, batch_size=4)
        >>> box_ap = results.best("coco/bbox_mAP").metrics["coco/bbox_mAP"]
        >>> prediction = model.predict("street.jpg", score=0.5)[0]
        >>> prediction
        street.jpg: 3 objects: 2 car, 1 person
        >>> prediction.boxes.shape, prediction.masks.shape
        ((3, 4), (3, 480, 640))
        >>> detections = prediction.to_supervision()
    """

    def __init__(
        self, source: str | Path, checkpoint: str | Path | None = None, *, trust_checkpoint_config: bool = False
    ) -> None:
        for name, value, kinds in ("source", source, (str, Path)), ("checkpoint", checkpoint, (str, Path, type(None))):
            if not isinstance(value, kinds):
                raise UserError(f"{name}={value!r}: must be a name or a path")
        if checkpoint is None and Path(source).suffix.lower() in SUFFIXES:
            if not trust_checkpoint_config:
                raise UserError(
                    f"Model({str(source)!r}): give Model(config, checkpoint), or trust_checkpoint_config=True if you "
                    "trust the checkpoint as you would trust a program"
                )
            source, checkpoint = "", source
        self.config = str(source) or None
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        if self.config is not None:
            find_config(self.config)
        if self.checkpoint is not None:
            checkpoint_file(self.checkpoint)
        self._predictor: tuple[PredictorOptions, Predictor] | None = None

    def __repr__(self) -> str:
        return f"Model({', '.join(repr(part) for part in (self.config, self.checkpoint) if part)})"

    def train(self, data: str | Path | None = None, *, epochs: int | None = None, **options: Any) -> RunResults | None:
        """Train as ``mmms train`` does; a model with weights goes on from them.

        Args:
            data: folder of the data set, of any layout that ``--data`` knows; None for the config's own.
            epochs: length of the training.
            options: of ``mmms train``.

        Returns:
            Its evaluations, as in ``results.json``; None if it had none.

        Raises:
            UserError: config, data and options do not fit each other.
            RunError: the training had to stop.
        """
        from mmms_plugin.report.run_results import NAME, RunResults
        from mmms_plugin.train.launch import best_checkpoint, train

        given = from_values(TrainOptions, _with_data(data, options | {"epochs": epochs}), self._own())
        if self.checkpoint is not None and not given.resume:
            given.cfg_options = {"load_from": self.checkpoint, **given.cfg_options}
        with _quiet():
            runner = train(given)
        found = best_checkpoint(runner)
        if found is not None:
            self.checkpoint = str(found[1])
        file = Path(runner.work_dir, f"{NAME}.json")
        return RunResults.read(file) if file.is_file() else None

    def test(self, data: str | Path | None = None, **options: Any) -> dict[str, float | None]:
        """The metrics of the model, as ``mmms test`` prints them; None where there was nothing to measure.

        Args:
            data: as for ``train``; ``split`` says which part.
            options: of ``mmms test``.

        Raises:
            UserError: config, checkpoint, data and options do not fit each other.
        """
        from mmms_plugin.report.tables import metric_figure
        from mmms_plugin.train.launch import evaluate

        given = self._evaluation(data, options)
        with _quiet():
            return {name: metric_figure(value) for name, value in evaluate(given).items()}

    def size_ap(
        self,
        data: str | Path | None = None,
        *,
        split: str = "val",
        test: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> SizeAPResults:
        """AP by object size of a detector, by ``mmms test`` and ``mmms_plugin.size_ap.size_ap``.

        Args:
            data: as for ``train``.
            split: part of the data.
            test: further options of ``mmms test``, such as ``dict(image_size=640, tiles=800)``.
            options: of `size_ap`, such as ``bins`` and ``bootstrap``.

        Raises:
            UserError: as for ``test``, or the model is not a detector.
        """
        from mmms_plugin.config.edit import coco_metrics
        from mmms_plugin.size_ap import check_options, size_ap
        from mmms_plugin.train.launch import evaluate, prepare_config

        _check_names(size_ap, options)
        check_options(options)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            predictions = Path(folder, "predictions.json")
            given = self._evaluation(data, {"split": split, **(test or {}), "out": predictions})
            evaluate(given, announce=False)
            truth = coco_metrics(prepare_config(given, training=False)[0])[0]["ann_file"]
            return size_ap(truth, {Path(str(self.config)).stem: predictions}, **options)

    def predict(
        self,
        pictures: AnyPicture | Iterable[AnyPicture],
        *,
        score: float | None = None,
        calibration: str | Path | None = None,
        thresholds: str | Path | None = None,
        **options: Any,
    ) -> list[Prediction]:
        """The model's predictions for pictures, in their order.

        Args:
            pictures: one or several: files, folders, patterns such as ``shots/*.png``, arrays (RGB, [height, width, 3],
                8 bits) or Pillow's images. Their pixels stay in memory with the predictions.
            score: lowest score of an object, or of a class of several; None is the default of ``mmms predict``.
            calibration: file of ``mmms size-ap --calibration``, which turns scores into probabilities by size.
            thresholds: file of ``mmms size-ap --thresholds``, lowest scores by class and size; ``score`` is then 0
                unless given.
            options: of ``mmms predict``, such as ``device``, ``image_size`` and ``tiles``.

        Raises:
            UserError: config, checkpoint and options do not fit each other, or a picture cannot be read.
        """
        rules = from_values(ScoreOptions, dict(score=score, calibration=calibration, thresholds=thresholds))
        rules.check_files()
        with _quiet():
            return self._predict(pictures, rules, options)

    def export(self, out: str | Path, **options: Any) -> Path:
        """Write the model for another engine, as ``mmms export`` does, and return the file.

        Args:
            out: ``.onnx``, ``.pt2`` or ``.xml``.
            options: of ``mmms export``, such as ``image_size`` and ``exits``.

        Raises:
            UserError: the model cannot be exported, or a package is missing.
            RunError: the engine's outputs differ from torch's.
        """
        if self.checkpoint is None:
            raise UserError(f"export: {NO_CHECKPOINT}")
        own = self._own() | {"checkpoint": self.checkpoint, "out": Path(out)}
        export.run(from_values(export.Options, options, own))
        return Path(out)

    def _predict(self, pictures: Any, rules: ScoreOptions, options: dict[str, Any]) -> list[Prediction]:
        from mmms_plugin.data.pictures import quiet_libraries
        from mmms_plugin.train.predict import rules_of

        predictor = self._built(options)
        predictor.rules = rules_of(predictor, rules.calibration, rules.thresholds)
        score = predictor.rules.least_score(rules.score) if predictor.rules else rules.score
        least, kind = predictor.task.least_score(score), predictor.task.keeper.predicts
        predictions = []
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            for name, path in _files_of(pictures, Path(folder)):
                try:
                    packed = predictor.prepare(path)
                except UserError as error:
                    raise UserError(f"{name}: {error}") from error
                pixels = predictor.pixels(path, packed)
                predictions.append(kind.of(name, pixels, predictor.style, predictor(packed, least), least))
        return predictions

    def _built(self, options: dict[str, Any]) -> Predictor:
        """The model of the options, which is kept for the next call."""
        from mmms_plugin.train.predict import Predictor

        if self.checkpoint is None:
            raise UserError(f"predict: {NO_CHECKPOINT}")
        own = dict(config=self.config, checkpoint=self.checkpoint, trust_checkpoint_config=self.config is None)
        given = from_values(PredictorOptions, options, own)
        if self._predictor is None or self._predictor[0] != given:
            given.check_files()
            predictor = Predictor(given)
            for remark in predictor.build():
                print(one_line(remark), file=sys.stderr)
            self._predictor = given, predictor
        return self._predictor[1]

    def _evaluation(self, data: str | Path | None, options: dict[str, Any]) -> EvaluateOptions:
        if self.checkpoint is None:
            raise UserError(f"test: {NO_CHECKPOINT}")
        own = self._own() | {"checkpoint": self.checkpoint}
        return from_values(EvaluateOptions, _with_data(data, options), own)

    def _own(self) -> dict[str, str]:
        if self.config is None:
            raise UserError("the model is a checkpoint alone, which only predicts: give Model(config, checkpoint)")
        return {"config": self.config}


def _with_data(data: str | Path | None, options: dict[str, Any]) -> dict[str, Any]:
    return options if data is None else {"data": data, **options}


def _check_names(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse names that are no options of ``size_ap``; those of ``mmms test`` are often meant."""
    known = signature(function).parameters.keys() - {"ann", "preds", "names"}
    for name in options:
        if name in known:
            continue
        if name in python_names(EvaluateOptions):
            raise UserError(f"{name}: an option of mmms test: give test=dict({name}=...)")
        near = get_close_matches(name, known, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{name}: no such option{hint}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hosts' warnings about their own deprecated calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _files_of(pictures: Any, folder: Path) -> Iterable[tuple[str, Path]]:
    """Names and files of pictures; arrays and images are written into ``folder``, without loss."""
    import numpy as np
    from PIL import Image

    from mmms_plugin.train.inputs import find_inputs

    single = isinstance(pictures, str | Path | np.ndarray | Image.Image) or not isinstance(pictures, Iterable)
    several = [pictures] if single else pictures
    for number, picture in enumerate(several):
        if isinstance(picture, str | Path):
            yield from ((str(source.path), source.path) for source in find_inputs([str(picture)], folder))
            continue
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                raise UserError(
                    f"picture {number}: an array of {picture.dtype}, shape {picture.shape}; must be RGB of uint8, "
                    "[height, width, 3]"
                )
            picture = Image.fromarray(picture)
        elif not isinstance(picture, Image.Image):
            raise UserError(f"picture {number}: must be a path, an array or an image, not {type(picture).__name__}")
        deep = picture.mode in ("I;16", "I;16B")
        if (picture.mode[0] in "IF" and not deep) or not (picture.width and picture.height):
            raise UserError(
                f"picture {number}: an image of mode {picture.mode}, {picture.width} x {picture.height} px; must have "
                "pixels of 8 or 16 bits"
            )
        file = folder / f"{number}.png"
        # Pillow's conversion of 16 bits clips them at 255; from a file, they are read as any other picture's
        (picture if deep else picture.convert("RGB")).save(file, compress_level=1)
        yield f"picture {number}", file

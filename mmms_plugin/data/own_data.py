"""The user's own data as the command line names them, and which pictures are held back for validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from mmms_plugin.coco.picture_files import MAX_PIXELS, MOST_PIXELS
from mmms_plugin.errors import UserError
from mmms_plugin.files import composed
from mmms_plugin.options import CommandOptions, option

ANY_LAYOUT = ("--data", "check-data", "convert-data")  # flags and commands
YAML = (".yaml", ".yml")
OF_COCO = {"--train-ann": "train_ann", "--val-ann": "val_ann", "--img-dir": "img_dir"}  # options and their fields
OF_MASKS = {"--binary-masks": "binary_masks", "--ignore-label": "ignore_label"}
VOID = 255  # label of pixels that are neither trained on nor counted


@dataclass(kw_only=True)
class PixelOptions(CommandOptions):
    """The limit that every command that decodes the user's pictures takes."""

    max_pixels: int = option(
        default=MAX_PIXELS, least=1, most=MOST_PIXELS, metavar="N", group="data",
        help="largest picture that is decoded, in pixels; decoding takes about 10 bytes a pixel",
    )  # fmt: skip


@dataclass(kw_only=True)
class AnyDataOptions(CommandOptions):
    """The option for a data set whose layout is found."""

    data: Path | None = option(
        metavar="DIR", group="data",
        help="data set in any layout: annotations of COCO, LVIS, YOLO, Pascal VOC or labelme, pictures with masks, or "
        "folders of classes, in place of the config's data; also a data.yaml of YOLO's",
    )  # fmt: skip


@dataclass(kw_only=True)
class PictureOptions(PixelOptions):
    """Options about pictures and masks that every command with a data set takes."""

    img_dir: str | None = option(
        metavar="DIR", group="data", help="folder that the file names of the pictures start from"
    )
    binary_masks: bool = option(
        default=False, group="data", help="read mask value 255 as class 1, for masks of 0 and 255"
    )
    ignore_label: int | None = option(
        metavar="N", least=0, most=255, group="data",
        help="label of masks that is neither trained on nor counted, as 255 never is (default: 255 alone)",
    )  # fmt: skip


@dataclass(frozen=True)
class OwnData:
    """Where the user's data are, as the options of ``mmms train``, ``test`` and ``check-data`` name them.

    Attributes:
        flag: the option that names the data, for messages.
        folder: the data set, None if files are named instead; of a YAML file, the one that it is in.
        work_dir: where mended copies of annotation files go.
        train_ann: annotation file for training, in place of the one in the folder.
        val_ann: annotation file for validation, likewise.
        img_dir: folder of the pictures.
        val_split: share of the training pictures to hold back, 0 for none.
        split_seed: random seed for which ones.
        split: what is evaluated, "train", "val" or "test".
        training: the training data are used too.
        binary_masks: read mask label 255 as class 1.
        ignore_label: label of masks that is void; so is 255, unless it is class 1.
        max_pixels: largest picture or mask that is decoded.
        yaml: YOLO's file that describes the data set, set if ``folder`` is one.
    """

    flag: str
    folder: Path | None
    work_dir: Path = Path()
    train_ann: Path | None = None
    val_ann: Path | None = None
    img_dir: Path | None = None
    val_split: float = 0.0
    split_seed: int = 0
    split: str = "val"
    training: bool = True
    binary_masks: bool = False
    ignore_label: int | None = None
    max_pixels: int = MAX_PIXELS
    yaml: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.any_layout and self.folder and self.folder.suffix.lower() in YAML and self.folder.is_file():
            object.__setattr__(self, "yaml", self.folder)
            object.__setattr__(self, "folder", self.folder.parent)
        for flag, folder in ((self.flag, self.folder), ("--img-dir", self.img_dir)):
            if folder is not None and not folder.is_dir():
                raise UserError(f"{flag} {folder}: no such folder")
        for flag, file in (("--train-ann", self.train_ann), ("--val-ann", self.val_ann)):
            if file is not None and not file.is_file():
                raise UserError(f"{flag} {file}: no such file")
        if not 0 <= self.val_split < 1:
            raise UserError(f"--val-split {self.val_split}: must be above 0 and below 1, such as 0.2")
        if self.val_split and self.val_ann:
            raise UserError("--val-split and --val-ann: give one of them")
        if self.binary_masks and self.ignore_label in (1, VOID):
            raise UserError(
                f"--ignore-label {self.ignore_label}: --binary-masks reads 255 as class 1; give one of them"
            )

    @property
    def relabel(self) -> list[tuple[int, int]]:
        """Labels of masks that are read as another label."""
        binary = [(VOID, 1)] if self.binary_masks else []
        return binary if self.ignore_label in (None, VOID) else [*binary, (self.ignore_label, VOID)]

    @property
    def where(self) -> str:
        """The option as it was given, for messages."""
        return self.flag if self.given is None else f"{self.flag} {self.given}"

    @property
    def given(self) -> Path | None:
        """The folder or YAML file that was given."""
        return self.yaml or self.folder

    @property
    def any_layout(self) -> bool:
        """Whether other formats than COCO's are looked for too."""
        return self.flag in ANY_LAYOUT


def held_back(names: Sequence[str], share: float, seed: int) -> list[bool]:
    """Which pictures are for validation: the same in every run and order; few change when pictures are added.

    Pictures are ordered by a hash of seed and name, and the first ``share`` of them is taken. Roboflow's augmented
    copies of a picture (``NAME.rf.HASH.jpg``) stay together.

    Args:
        names: file names.
        share: above 0 and below 1.
        seed: another seed holds back other pictures.

    Raises:
        UserError: one side would be empty.
    """
    groups = [PurePosixPath(name).name.split(".rf.")[0] if ".rf." in name else name for name in names]
    groups = [composed(group) for group in groups]  # the same on every system
    order = sorted(set(groups), key=lambda group: blake2b(f"{seed}/{group}".encode("utf-8", "replace")).digest())
    count = round(share * len(order))
    if not 0 < count < len(order):
        raise UserError(f"--val-split {share}: of {len(order)} pictures this leaves {count} for validation")
    chosen = set(order[:count])
    return [group in chosen for group in groups]


def extras(options: Any) -> list[str]:
    """The options beside that of the data that are given, by the fields of an `OwnData` or of a command's options."""
    fields = {**OF_COCO, **OF_MASKS}
    values = {name: getattr(options, field) for name, field in fields.items()}
    return [name for name, value in values.items() if value is not None and value is not False and value != ""]


def refuse_foreign(given: Iterable[str], flag: str, data: str) -> None:
    """Refuse options that are for other data.

    Args:
        given: names of options, as of `extras`.
        flag: the option for the kind of data.
        data: the data in words, for messages.

    Raises:
        UserError: one of them has no meaning for these data.
    """
    for name in given:
        owner = "--voc-dir" if name in OF_MASKS else "--coco-dir"
        if flag != owner and (name in OF_MASKS or flag in ("--voc-dir", "--image-dir")):
            raise UserError(f"{name}: belongs to {owner}, not to {data}")

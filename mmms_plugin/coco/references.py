"""Which image and which class of the ground truth a prediction means, by ids or by names.

Names decide where a file has both: ids are only numbers, and those of another file mean nothing. Where the two
contradict each other, a note says so.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.formats import SUFFIXES, Source, class_names, unknown_images
from mmms_plugin.coco.mending import as_id, as_side
from mmms_plugin.coco.objects import GroundTruth, positions
from mmms_plugin.coco.records import Category, Columns, Image, Results, few, image_and_category_ids
from mmms_plugin.errors import UserError, counted, printable, shown

MOST_DIGITS = 19  # of an id
ABSENT = -(2**63)  # in place of an id
NAMES = {"image_id": "file_name", "category_id": "category_name"}  # beside ids
DEEPEST = 10  # folders of a name that are told apart
Notes = tuple[str, ...]


class ImageNames:
    """The images of a data set, to be found by names of files that may have other folders or no suffix.

    Args:
        file_names: of the images.
        ids: as many.
    """

    def __init__(self, file_names: Sequence[str], ids: NDArray[np.int64]) -> None:
        self._file_names, self._image_ids = file_names, ids

    @cached_property
    def _ids(self) -> dict[str, int | None]:
        """By every tail of a name, with and without suffix; None for a tail of several names."""
        names = [_plain(name) for name in self._file_names]
        ids: dict[str, int | None] = {}
        for variants in ([_without_suffix(name) for name in names], names):  # names with suffix are better known
            known: dict[str, int | None] = {}
            for name, i in zip(variants, self._image_ids.tolist(), strict=False):
                known.update((tail, None if known.get(tail, i) != i else i) for tail in _tails(name))
            ids |= known
        whole: dict[str, int | None] = {}  # and whole names better than parts of others
        for name, i in zip(names, self._image_ids.tolist(), strict=False):
            whole[name] = None if whole.get(name, i) != i else i
        return ids | {name: i for name, i in whole.items() if _without_suffix(name) != name}

    def find(self, name: str) -> int | None:
        """The id of the image that shares the longest tail of folders and file; None if several do, or none."""
        name = _plain(name)
        bare = _without_suffix(name) if Path(name).suffix.lower() in SUFFIXES else name
        return next((self._ids[tail] for tail in (*_tails(name), *_tails(bare)) if tail in self._ids), None)

    def numbered(self) -> dict[int, int]:
        """Ids by number, of images whose names are numbers, such as ``000012.jpg``."""
        numbers: dict[int, int | None] = {}
        for name, i in self._ids.items():
            if name.isdecimal() and len(name) < MOST_DIGITS:
                numbers[int(name)] = None if numbers.get(int(name), i) != i else i
        return {number: i for number, i in numbers.items() if i is not None}


def _plain(name: str) -> str:
    """A file's name with / and composed letters, whichever system it is from."""
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def _tails(name: str) -> list[str]:
    """A file's name with all of its folders, with all but the first, ... and without any."""
    parts = name.rsplit("/", DEEPEST)
    return [tail for i in range(len(parts)) if (tail := "/".join(parts[i:]))]


def _without_suffix(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{Path(file).stem}"


def name_of(category: Category) -> str:
    """The name of a category, or its id if it has none."""
    if isinstance(category.name, str):
        return printable(category.name)
    return shown(category.id if category.name is None else category.name)


def listed_twice(names: Iterable[str]) -> list[str]:
    """The names that several categories have; those without a name do not count."""
    return [name for name, count in Counter(filter(None, names)).items() if count > 1]


def ids_of_truth(results: Results, truth: GroundTruth, argument: str, path: Path) -> tuple[Columns, Notes]:
    """The predictions of a JSON file with the ground truth's ids, and notes on how they were found.

    Args:
        results: the file's content. Its own images and categories are matched by name. A list's image ids may be names,
            as Ultralytics writes them; with YOLO's or VOC's ground truth its category ids are numbers of classes.
        truth: the data set they are for.
        argument, path: option and file, for messages.

    Raises:
        UserError: an image or class that the ground truth does not have.
    """
    images = ImageNames(truth.file_names, truth.image_ids)
    if results.images is not None and results.categories is not None:
        return _by_own_lists(results, results.images, results.categories, truth, images, argument, path)
    columns, notes = _image_ids(results.columns, truth, images, argument, path)
    columns, more = _category_ids(columns, truth, f"{argument} {path}")
    return columns, (*notes, *more)


def _by_own_lists(
    results: Results, own_images: Sequence[Image], own_categories: Sequence[Category], truth: GroundTruth,
    images: ImageNames, argument: str, path: Path,
) -> tuple[Columns, Notes]:  # fmt: skip
    """Images by file name, classes by name, of a file that lists its own."""
    where, columns = f"{argument} {path}", results.columns
    image_ids, category_ids = image_and_category_ids(own_images, own_categories, where)
    image = known_positions(columns.image_id, image_ids, "image", f"{where}: annotations", "its images do not have")
    category = known_positions(
        columns.category_id, category_ids, "category", f"{where}: annotations", "its categories do not have"
    )
    notes: list[str] = []
    of_image = image_ids
    if truth.file_names and all(isinstance(own.file_name, str) for own in own_images):
        found = [images.find(own.file_name) for own in own_images]
        absent = [str(own.file_name) for own, i in zip(own_images, found, strict=True) if i is None]
        if absent and len(absent) == len(found):
            raise unknown_images(absent, argument, path)
        _refuse_twice(own_images, found, where)
        of_image = np.array([ABSENT if i is None else i for i in found], np.int64)
        total, lacking = len(truth.image_ids), len(truth.image_ids) - len(found) + len(absent)
        if lacking:
            notes.append(f"{lacking} of the ground truth's {total} images are not in it: their objects count as missed")
        if absent:
            notes.append(f"{len(absent)} of its images are not in the ground truth ({few(absent)}): they are left out")
        notes += other_sizes(own_images, found, truth)
    else:
        notes.append("images are matched by id, as one of the files has no file names")
    by_name, names = _ids_by_name(truth), list(map(name_of, own_categories))
    unknown = [names[i] for i in np.unique(category).tolist() if by_name.get(names[i]) is None]
    if len(unknown) and len(unknown) == len(np.unique(category)):
        raise _unknown_classes(unknown, truth, where)
    if unknown:
        notes.append(f"predictions of {_listed_classes(unknown)} are left out")
    known = {name: i for name, i in by_name.items() if i is not None}
    of_category = np.array([known.get(name, ABSENT) for name in names], np.int64)
    columns = replace(columns, image_id=of_image[image], category_id=of_category[category])
    kept = (columns.image_id != ABSENT) & (columns.category_id != ABSENT)
    columns = columns if kept.all() else columns.results_at(np.flatnonzero(kept))
    if results.least_score:
        lowest = f"it holds no predictions of a score below {results.least_score:g}, which lowers AP"
        notes.append(f"{lowest}: predict with --score 0, or use mmms test --out")
    return columns, tuple(notes)


def _refuse_twice(own_images: Sequence[Image], found: Sequence[int | None], where: str) -> None:
    first, times = max(Counter(i for i in found if i is not None).items(), key=lambda item: item[1], default=(0, 0))
    if times < 2:
        return
    names = [str(own.file_name) for own, i in zip(own_images, found, strict=True) if i == first]
    raise UserError(f"{where}: images: {few(names)} are the same image of the ground truth; predict on one split")


def other_sizes(own_images: Sequence[Image], found: Sequence[int | None], truth: GroundTruth) -> list[str]:
    """A note on images that have another size in the ground truth."""
    sizes = dict(zip(truth.image_ids.tolist(), map(tuple, truth.image_sizes.tolist()), strict=True))
    others = []
    for own, i in zip(own_images, found, strict=True):
        size, known = (as_side(own.width), as_side(own.height)), sizes.get(-1 if i is None else i, (0, 0))
        if all(size) and all(known) and size != known:
            others.append(f"{own.file_name}: {size[0]} x {size[1]}, ground truth {known[0]} x {known[1]}")
    if not others:
        return []
    return [f"images of another size than in the ground truth: {len(others)} ({others[0]}); are boxes in its pixels?"]


def contradicting_names(own_images: Sequence[Image], images: ImageNames) -> list[str]:
    """A note on images whose id is known, by their file's name, and whose ``file_name`` is another image's."""
    others = [own for own in own_images if images.find(own.file_name) not in (None, own.id)]
    if not others:
        return []
    listed = f"{len(others)} of {len(own_images)} (first: {others[0].file_name})"
    return [f"filename and the name of the XML file contradict each other: {listed}; the latter is used"]


def _image_ids(
    columns: Columns, truth: GroundTruth, images: ImageNames, argument: str, path: Path
) -> tuple[Columns, Notes]:
    """A list's image ids: by ``file_name`` where it is stated, else ids, or names or their numbers."""
    given = columns.image_id
    by_name = _unique(filter(_is_text, columns.beside.get("file_name", ())), images.find) if truth.file_names else {}
    names = columns.beside.get("file_name", ()) if by_name else ()
    stated = [by_name.get(name) if _is_text(name) else None for name in names]
    if stated and None not in stated:
        return _by_names(columns, "image_id", stated, truth.image_ids)
    named = given.dtype == object or truth.format not in ("coco", "lvis")
    if named or (truth.file_names and (positions(given, truth.image_ids) < 0).any()):
        numbered = images.numbered()
        known = _unique(given.tolist(), lambda i: images.find(i) if isinstance(i, str) else numbered.get(i))
        absent = sorted({str(image) for image, i in known.items() if i is None})
        if absent and named:
            _refuse_numbers_as_texts("image_id", given, truth.image_ids, f"{argument} {path}")
            if given.dtype != object and len(absent) == len(known):
                raise UserError(
                    f"{argument} {path}: image_id holds numbers ({few(absent)}) that are in no file name of the ground "
                    f"truth ({few(truth.file_names)}): write names of files as image_id, or give as --ann the COCO "
                    "file that the numbers are from"
                )
            raise unknown_images(absent, argument, path)
        if not absent:
            columns = replace(columns, image_id=np.array([known[image] for image in given.tolist()], np.int64))
    others = [name for name in by_name if by_name[name] is None and isinstance(name, str)]
    if not others:
        return columns, ()
    listed = f"{counted(len(others), 'file name')} that the ground truth does not have ({few(others)})"
    return columns, (f"{listed}: image_id is used; are they predictions of another split?",)


def _category_ids(columns: Columns, truth: GroundTruth, where: str) -> tuple[Columns, Notes]:
    """A list's category ids: by ``category_name`` where it is stated, names, ids, or numbers of classes."""
    by_name = _ids_by_name(truth)
    if columns.category_id.dtype == object:
        known = _unique(columns.category_id.tolist(), lambda i: by_name.get(i) if _is_text(i) else as_id(i))
        if absent := [str(name) for name, i in known.items() if i is None]:
            _refuse_numbers_as_texts("category_id", columns.category_id, truth.category_ids, where)
            raise _unknown_classes(absent, truth, where)
        of_truth = np.array([known[i] for i in columns.category_id.tolist()], np.int64)
        return replace(columns, category_id=of_truth), ()
    names = columns.beside.get("category_name", [])
    stated = [by_name.get(name) if _is_text(name) else None for name in names]
    if stated and None not in stated:
        return _by_names(columns, "category_id", stated, truth.category_ids)
    others = {name: None for name, i in zip(names, stated, strict=True) if i is None and isinstance(name, str)}
    unknown = f"{counted(len(others), 'class name')} that the ground truth does not have ({few(list(others))})"
    strange = f"{unknown}: category_id is used"
    notes = (strange,) if others else ()
    labels, own = columns.category_id, truth.format in ("coco", "lvis")
    first = 0 if len(labels) and labels.min() == 0 else 1
    if own or not len(labels) or first == truth.category_ids.min():
        return columns, notes if own else (*notes, *order_note(truth))
    columns = replace(columns, category_id=labels - first + int(truth.category_ids.min()))
    count = f"category ids are taken to count from {first}, as {'no' if first else 'an'} id 0 is used"
    return columns, (*notes, *order_note(truth), count)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _refuse_numbers_as_texts(key: str, values: NDArray, known: NDArray[np.int64], where: str) -> None:
    """Raise a UserError if texts, which are taken for names, spell ids of the ground truth."""
    ids = set(map(str, known.tolist()))
    if (i := next((i for i, value in enumerate(values) if _is_text(value) and value in ids), None)) is not None:
        raise UserError(f"{where}: [{i}].{key}: {shown(values[i])} is a text; write the number, without quotes")


def _unique(values: Iterable[Any], id_of: Callable[[Any], int | None]) -> dict[Any, int | None]:
    """The id of every value that can be a key; ``id_of`` is called once for each."""
    ids: dict[Any, int | None] = {}
    for value in values:
        if isinstance(value, str | int | float) and value not in ids:
            ids[value] = id_of(value)
    return ids


def _by_names(columns: Columns, key: str, stated: list[Any], known: NDArray[np.int64]) -> tuple[Columns, Notes]:
    """Columns with the ids of names, and a note on ids beside them that the ground truth has for something else."""
    name, given, ids = NAMES[key], getattr(columns, key), np.array(stated, np.int64)
    named = replace(columns, image_id=ids) if key == "image_id" else replace(columns, category_id=ids)
    if given.dtype == object:
        return named, ()
    wrong = np.flatnonzero((given != ids) & (positions(given, known) >= 0))
    if not len(wrong):
        return named, ()
    first = int(wrong[0])
    example = f"prediction {first + 1}: {key} {given[first]}, but {columns.beside[name][first]} has {ids[first]}"
    note = f"{key} and {name} contradict each other: {len(wrong)} of {len(ids)} ({example}); {name} is used"
    return replace(named, instead={**columns.instead, key: given}), (note,)


def numbered_classes(
    path: Path, truth: GroundTruth, source: Source, argument: str
) -> tuple[list[str], NDArray[np.int64], str, Notes]:
    """Names and ids of the classes 0, 1, ... of YOLO's predictions, where they are from, and perhaps a note on that.

    Names are those of ``--classes`` or of ``classes.txt`` or ``data.yaml`` in the folder, else the ground truth's, in
    the order of ids, which is noted. A class that the ground truth does not have gets the id -1.
    """
    order = np.argsort(truth.category_ids)
    own = [truth.category_names[i] for i in order]
    named = truth.format != "yolo" or own != [str(i) for i in range(len(own))]  # YOLO's labels may have no names
    beside = (path / name for name in ("classes.txt", "data.yaml"))
    file = source.classes or next((file for file in beside if file.is_file()), None)
    if named and file:
        by_name, names = _ids_by_name(truth), class_names(file, "--classes" if source.classes else argument)
        ids = [by_name.get(printable(name)) for name in names]
        return names, np.array([-1 if i is None else i for i in ids], np.int64), f"the classes of {file}", ()
    return own, truth.category_ids[order], "as in the ground truth", order_note(truth)


def order_note(truth: GroundTruth) -> Notes:
    """A note on the order of the classes where numbers meet names; YOLO's ground truth needs none."""
    names = [truth.category_names[i] for i in np.argsort(truth.category_ids)]
    return () if truth.format == "yolo" else (f"numbers of classes are taken in this order: {few(names)}",)


def _ids_by_name(truth: GroundTruth) -> dict[str, int | None]:
    """Category ids by name; None for a name of several."""
    ids: dict[str, int | None] = {}
    for name, i in zip(truth.category_names, truth.category_ids.tolist(), strict=True):
        ids[name] = None if name in ids else i
    return ids


def _unknown_classes(names: Sequence[str], truth: GroundTruth, where: str) -> UserError:
    return UserError(f"{where}: predictions of {_listed_classes(names)}; it has {few(truth.category_names)}")


def _listed_classes(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'class')} that the ground truth does not have ({few(names)})"


def known_positions(
    ids: NDArray, known: NDArray, what: str, where: str, lacking: str = "the annotation file does not have"
) -> NDArray:
    """The place of each id in ``known``.

    Args:
        ids: of images or categories.
        known: those that may be used.
        what: 'image' or 'category'.
        where: option, file and list, for messages.
        lacking: what has no such ids, for messages.

    Raises:
        UserError: an id that is not known.
    """
    places = positions(ids, known)
    unknown = places < 0
    if not unknown.any():
        return places
    values = np.unique(ids[unknown])
    hint = "; is the annotation file that of another split?"
    if what == "category":
        hint = _label_hint(ids, known)
    elif np.isin(np.unique(ids) + 1, known).all():
        hint = "; all would fit if they were one higher: write the annotation file's own ids"
    absent = f"{what} ids that {lacking} ({counted(len(values), 'id')}: {few(values)})"
    raise UserError(f"{where}: {unknown.sum()} of {len(ids)} are of {absent}{hint}")


def _label_hint(ids: NDArray, known: NDArray) -> str:
    """What unknown category ids look like: 0-based labels, or class numbers 1..n if the file's ids have gaps."""
    used, count = np.unique(ids), len(known)
    listed = f"write the annotation file's own ids ({few(np.sort(known))})"
    if used[0] == 0 and used[-1] < count:
        labels = "labels from 0" if count == 1 else f"0-based labels 0..{count - 1}"
        return f"; they look like {labels}: {listed}"
    if used[0] >= 1 and used[-1] <= count and known.max() > count:
        return f"; they look like class numbers 1..{count}: {listed}"
    return f"; it has {count}: {few(np.sort(known))}"

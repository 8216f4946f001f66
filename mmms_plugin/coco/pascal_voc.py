"""Pascal VOC's XML files, one per image: ``size``, and ``object`` with ``name``, ``bndbox`` and ``difficult``.

Deviations:
1. Corners are whole pixels counted from 1, both inside the box (VOC development kit): a box is ``xmin - 1``,
   ``ymin - 1``, ``xmax - xmin + 1``, ``ymax - ymin + 1``, as Detectron2 takes it.
2. Objects marked ``difficult`` are taken as COCO's crowds: a detection of one is neither right nor wrong.
3. Predictions are the same files with a ``score`` or ``confidence`` in every object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from mmms_plugin.coco.formats import (
    SUFFIXES,
    Labels,
    Rows,
    Source,
    by_stem,
    class_names,
    files_below,
    finite,
    picture_size,
    pictures_in,
    records,
    refuse_two_files,
    unknown_images,
)
from mmms_plugin.coco.json_files import BOM
from mmms_plugin.coco.mending import FARTHEST
from mmms_plugin.coco.records import Columns, Image
from mmms_plugin.coco.references import ImageNames
from mmms_plugin.coco.text_files import bytes_of, lines_of
from mmms_plugin.errors import UserError, shown

CORNERS = [f"bndbox/{name}" for name in ("xmin", "ymin", "xmax", "ymax")]
SCORES = ("score", "confidence")
DEEPEST = 20  # nested elements
LONGEST_DECLARATION = 1000  # bytes
DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]*)""")
# Of Python's codecs, which a file must not choose among freely: some are not of texts
ENCODINGS = re.compile(
    r"utf-?8|(us-)?ascii|iso-8859-\d\d?|latin-?1|(windows-|cp)125\d|koi8-[ru]|gb(k|2312|18030)|big5|shift[-_]jis|euc-(jp|kr)",
    re.IGNORECASE,
)
Texts = dict[str, tuple[int, str]]  # line and text of every element, by its path


def read_voc_truth(path: Path, source: Source, argument: str) -> Labels:
    """Images, categories and objects of a folder of XML files, or of those that a list in ``ImageSets`` names.

    Args:
        path: folder, or ``ImageSets/Main/val.txt`` with names of files in ``Annotations``.
        source: its folder of pictures is for sizes and file names that the files lack; without its file of classes,
            these are in alphabetical order.
        argument: the option that names the path, for messages.

    Raises:
        UserError: a file that does not fit, with file and line.
    """
    files = _xml_files(path, argument)
    pictures: dict[str, Path] = {}
    if source.pictures:
        listed = pictures_in(source.pictures)
        pictures = {file.stem: file for file in reversed(listed) if file.stem in files}
    parsed = [_parse(file, argument) for file in files.values()]
    used = {texts["name"][1] for _, objects in parsed for texts in objects if "name" in texts}
    given = class_names(source.classes, source.naming) if source.classes else sorted(used)
    numbers = {name: i for i, name in enumerate(given, 1)}
    rows, sizes, names = Rows(argument), [], []
    for i, ((stem, file), (image, objects)) in enumerate(zip(files.items(), parsed, strict=True), 1):
        suffix = Path(image.get("filename", (0, ""))[1]).suffix
        names.append(file.stem + suffix * (suffix.lower() in SUFFIXES))
        if source.pictures and stem in pictures:
            names[-1] = pictures[stem].relative_to(source.pictures).as_posix()
        sizes.append(_size(image, names[-1], source.pictures, f"{argument} {file}: image", source.tolerant))
        for texts in objects:
            _add(file, texts, i, numbers, rows, f"those of {source.naming} {source.classes}")
    return Labels(*records(names, sizes, [(i, name) for name, i in numbers.items()]), rows.columns(), source.pictures)


def read_voc_detections(
    folder: Path, images: ImageNames, classes: Mapping[str, int], argument: str
) -> tuple[Columns, list[Image]]:
    """Predictions in XML files, with the ids of the ground truth, and what the files say about their images.

    Args:
        folder: of XML files whose objects have scores.
        images: of the ground truth.
        classes: ids by name.
        argument: the option that names the folder, for messages.

    Raises:
        UserError: a file that does not fit, with file and line.
    """
    files, rows = _xml_files(folder, argument), Rows(argument)
    found = {name: images.find(name) for name in files}
    if absent := [name for name, image in found.items() if image is None]:
        raise unknown_images(absent, argument, folder)
    refuse_two_files(found, argument, folder)
    own = []
    for name, file in files.items():
        (about, objects), image = _parse(file, argument), found[name] or 0
        own.append(Image(image, *_size(about, "", None, argument), about.get("filename", (0, ""))[1] or name))
        for texts in objects:
            _add(file, texts, image, classes, rows, "the ground truth's", scored=True)
    return rows.columns(), own


def _add(
    file: Path, texts: Texts, image: int, classes: Mapping[str, int], rows: Rows, whose: str, scored: bool = False
) -> None:
    """Add one object, or what is wrong with it; messages say ``whose`` the ``classes`` are."""
    start = texts[""][0]
    line, name = texts.get("name", (start, ""))
    wanted = CORNERS + [next((key for key in SCORES if key in texts), SCORES[0])] * scored
    values = {key: finite(texts.get(key, (0, ""))[1]) for key in wanted}
    far = {key for key in CORNERS if abs(values[key] or 0.0) > FARTHEST}
    wrong = next((key for key, value in values.items() if value is None or key in far), None)
    left, top, right, bottom = (values[key] or 0.0 for key in CORNERS)
    if name not in classes:
        problem = f"class {shown(name)}: allowed are {whose}" if name else "an object without name"
    elif wrong:
        line, text = texts.get(wrong, (start, ""))
        problem = f"{wrong} {shown(text)}: must be a number{f' within ±{FARTHEST:g} px' * (wrong in CORNERS)}"
    elif right - left <= -1 or bottom - top <= -1:  # a box narrower than a pixel has its max before its min
        line, problem = start, f"box {left:g} {top:g} {right:g} {bottom:g}: min is above max"
    else:
        crowd = not scored and texts.get("difficult", (0, ""))[1] == "1"
        score = values[wanted[-1]] if scored else None
        rows.add(image, classes[name], (left - 1, top - 1, right - left + 1, bottom - top + 1), None, score, crowd)
        return
    rows.refuse(file, line, problem)


def _size(image: Texts, name: str, pictures: Path | None, argument: str, tolerant: bool = False) -> tuple[int, int]:
    """Width and height in px, from the file or from the image; 0 if neither states them."""
    width, height = (finite(image.get(f"size/{side}", (0, ""))[1]) or 0 for side in ("width", "height"))
    if min(width, height) >= 1 and max(width, height) < 2**31:
        return int(width), int(height)
    if pictures and os.path.isfile(pictures / name):
        return picture_size(pictures / name, argument, tolerant)
    return 0, 0


def _xml_files(path: Path, argument: str) -> dict[str, Path]:
    if path.is_dir():
        return by_stem(files_below(path, (".xml",)), argument)
    if path.suffix.lower() == ".xml":
        raise UserError(f"{argument} {path}: one file; name the folder of the .xml files")
    folder = path.parent.parent.parent / "Annotations"
    files: dict[str, Path] = {}
    for line in lines_of(path, argument):
        # a name may have blanks, and the list of a class has 1, 0 or -1 after the name
        whole, first = Path(line).name, Path(line.split()[0]).name
        name = whole if os.path.isfile(folder / f"{whole}.xml") else first
        files[name] = folder / f"{name}.xml"
    if absent := [file for file in files.values() if not os.path.isfile(file)]:
        raise UserError(f"{argument} {path}: no file {absent[0]} ({len(absent)} of {len(files)} are missing)")
    return files


def _parse(path: Path, argument: str) -> tuple[Texts, list[Texts]]:
    """The texts of the image's own elements, and those of every object.

    Raises:
        UserError: not XML, or it declares entities or attributes, which can grow or take time without limit.
    """
    image: Texts = {}
    objects: list[Texts] = []
    stack: list[str] = []
    text: list[str] = []
    parser = expat.ParserCreate()

    def refuse(what: str) -> None:
        raise UserError(f"{argument} {path}, line {parser.CurrentLineNumber}: {what}")

    def declare(_: str, __: str | None, ___: str | None, inside: bool) -> None:
        if inside:
            refuse("a document type is declared; labels need none")

    def start(name: str, _: dict[str, str]) -> None:
        stack.append(name)
        text.clear()
        if len(stack) > DEEPEST:
            refuse("elements are nested too deep")
        if stack[1:] == ["object"]:
            objects.append({"": (parser.CurrentLineNumber, "")})

    def end(_: str) -> None:
        inside = stack[1:2] == ["object"]
        owner, key = (objects[-1], stack[2:]) if inside else (image, stack[1:])
        owner.setdefault("/".join(key), (parser.CurrentLineNumber, "".join(text).strip()))
        stack.pop()
        text.clear()

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.StartDoctypeDeclHandler = declare
    try:
        parser.Parse(_text(path, argument), True)
    except expat.ExpatError as error:
        raise UserError(f"{argument} {path}, line {error.lineno}: not XML ({expat.ErrorString(error.code)})") from None
    return image, objects


def _text(path: Path, argument: str) -> str:
    """An XML file, decoded as it declares: expat knows few encodings, and none with several bytes a letter.

    Raises:
        UserError: an encoding that is unknown, or not that of the file.
    """
    data = bytes_of(path, argument)
    declared = DECLARED.match(data.removeprefix(BOM)[:LONGEST_DECLARATION])
    encoding = declared[1].decode("ascii", "replace") if declared else "utf-8"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif not ENCODINGS.fullmatch(encoding):
        raise UserError(f"{argument} {path}: encoding {shown(encoding)}: cannot be read; save the file as UTF-8")
    try:
        return data.removeprefix(BOM).decode(encoding)
    except (UnicodeDecodeError, LookupError):  # or a number that Python has no encoding of
        raise UserError(f"{argument} {path}: not a text in {encoding}; save the file as UTF-8") from None

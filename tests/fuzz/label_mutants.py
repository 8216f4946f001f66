"""Small data sets in the formats of COCO, LVIS, YOLO and Pascal VOC, with something wrong in one of the files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.json_mutants import HEIGHT, VALUES, WIDTH, WORDS, damaged_text, files, mutate, pick

Rng = np.random.Generator
PICTURES = ("1", "2", "3")
CLASSES = ("cat", "dog", "猫")
FILE_NAMES: tuple[Any, ...] = (
    "/", "//", "..", ".", "a/..", "./", "/etc/passwd", "../1.png", "C:\\1.png", "C:1.png", "\\\\host\\x\\1.png", "\\",
    "a\0.png", "x" * 300 + ".png", "d" * 5000 + "/1.png", "d/" * 3000, "猫.png", "\udcff.png", "\ud800.png", "sub",
    "sub/", "1.png/", "./1.png", "sub/1.png", "http://h/", "?://", "://", "file:///1.png", "h://x/1.png?a=1/2",
    " 1.png", "1.png ", "CON", "a\nb.png", "\x1b[31m.png", "", " ", 5, None, [], {}, "~/1.png", "$HOME", "*.png",
    "[red]1.png", "1.PNG", "2.png", "\u0301.png", "1.png\u2028",
)  # fmt: skip
NESTED = (30, 3000)
YAML = (
    "&a [*a]", "*a", "<<: *a", "[&b [x, x], *b]", "2020-13-45", "2020-01-01", "2020-01-01T25:61:61Z", "12:30:45",
    "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary x", "!!int 9", "!!set {a}", "! a",
    "!x", "!<tag:yaml.org,2002:str> a", "9" * 5000, "0x" + "f" * 9000, "0b" + "1" * 20000, "-" + "1" * 5000, "1e400",
    ".nan", "-.inf", "0o17", "017", "1_000", "0.5", "-1", "999999", "~", "null", "yes", "off", "=", "<<", "x" * 300,
    "x" * 9000, f"'{'x' * 300}'", r'"\0"', r'"\uD800"', r'"\U00110000"', r'"\x1b[31m"', '"\\', "'", '"', "@a", "`a",
    "%a", "&", "*", "!", "#", "|\n  x", ">-\n  x", "|9\n x", "\t", "a: b: c", "- a", "? a", "? [a]\n: b", "---",
    "...", "%YAML 9.9\n---", "{}", "[]", "[[a]]", "[a, [b]]", "[a, {b: c}]", "{a: b}", "{0: a, 2: b}", 
    "{1: a, 0: b}", "{0: a, 0: b}", "{[0]: a}", "{~: a}", "{0: ~}", "[a, a]", "[~]", "['']", "[' ']", "/", "..", ".",
    "../..", "C:\\x", "~/x", "http://x", "images", "images.txt", "[images, images]", "images/1.png", "\ufeff", "\0",
    "\x85", "\u2028", "😀", "猫", "[" + "a, " * 200 + "]", "[" + "a, " * 70_000 + "]",
    "{" + ", ".join(f"{i}: c{i}" for i in range(60_000)) + "}",
    *(sign * n for n in NESTED for sign in ("[", "{", "- ", "? ", "{a: ")),
)  # fmt: skip
LINES = (
    "999999 .5 .5 .1 .1", "65535 .5 .5 .1 .1", "3 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "0.5 .5 .5 .1 .1",
    "1e3 .5 .5 .1 .1", "0 nan .5 .1 .1", "0 inf .5 .1 .1", "0 50 50 10 10", "0 .5 .5 -.1 .1", "0 .5 .5 0 0",
    "0 .5 .5", "0", "cat .5 .5", "0 .5 .5 .1 .1 .9", "0 .5 .5 .1 .1 .9 .9", "0 .1 .1 .9 .1 .9 .9",
    "0 .1 .1 .9 .1 .9 .9 .5", "0 1e-320 1e-320 0 0", "0 " + "9" * 5000 + " .5 .1 .1", "9" * 5000 + " .5 .5 .1 .1",
    "0 " + ".5 .6 " * 5000, "0,.5,.5,.1,.1", "\x1b[31m", "\ud800", "0 1_0 .5 .1 .1", "0 \u0661 .5 .1 .1", "#", "{}",
    "x" * 9000, "\0",
)  # fmt: skip
ENCODINGS = (
    "klingon", "hex", "rot13", "zlib", "idna", "punycode", "undefined", "unicode_escape", "utf-7", "utf-16", "utf-32",
    "utf8", "gbk", "latin-1", "windows-1252", "iso-8859-99", "cp037", "mbcs", "oem", "", " ", "../x", "x" * 5000,
    "\x1b",
)  # fmt: skip
VERSIONS = ("1.0", "1.0", "1.0", "1.1", "9", "")
STARTS = (
    "<name><![CDATA[", "<name a='1' a='2'>", "<x:name>", "<name>&#0;", "<name>&#x1b;", "<name>&lt;", "<name>&nbsp;",
)  # fmt: skip
TAGS = ("object", "name", "bndbox", "xmin", "ymax", "size", "width", "filename", "difficult", "score", "annotation")
DOCTYPES = (
    '<!DOCTYPE a [<!ENTITY b "b">]>', '<!DOCTYPE a [<!ENTITY % b SYSTEM "file:///etc/passwd">%b;]>', "<!DOCTYPE a>",
    '<!DOCTYPE a SYSTEM "http://localhost/a.dtd">', '<!DOCTYPE a [<!ATTLIST a b CDATA "c">]>', "<?php x?>",
    "<!-- -- -->",
    '<!DOCTYPE a [<!ENTITY a0 "x">' + "".join(f'<!ENTITY a{i} "&a{i - 1};&a{i - 1};">' for i in range(1, 40)) + "]>",
)  # fmt: skip


def write_pictures(folder: Path) -> None:
    """Pictures of ``WIDTH`` x ``HEIGHT`` px."""
    folder.mkdir(parents=True)
    for name in PICTURES:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{name}.png")


def write_coco(folder: Path, rng: Rng) -> None:
    """Splits ``train`` and ``val``, one of which has something wrong, above ``images/``."""
    write_pictures(folder / "images")
    (folder / "images/sub").mkdir()
    spoilt = pick(("train", "val"), rng)
    for split in ("train", "val"):
        content = _renamed(files(rng)[0], rng) if split == spoilt else files(rng)[0]
        data = mutate(content, rng) if split == spoilt and rng.random() < 0.7 else json.dumps(content).encode()
        (folder / f"{split}.json").write_bytes(data)


def _renamed(content: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """Annotations with odd file names in half of the cases."""
    for image in content["images"] if rng.random() < 0.5 else ():
        if rng.random() < 0.6:
            image["file_name"] = pick(FILE_NAMES, rng)
    return content


def write_lvis(folder: Path, rng: Rng) -> None:
    """``ann.json`` and results ``one.json``, one of which has something wrong."""
    truth, results = files(rng)
    for image in truth["images"]:
        known = [category["id"] for category in truth["categories"]]
        image["neg_category_ids"] = known[: int(rng.integers(3))]
        image["not_exhaustive_category_ids"] = known[int(rng.integers(1, 4)) :]
        image["coco_url"] = f"http://images.example/val/{image.pop('file_name')}"
    for category in truth["categories"]:
        category["frequency"] = pick("rcf", rng)
    odd = (*VALUES, "r", "c", "f", ["r"], {"r": 1}, [1, True], [[1]], [2**63], ["1"], [1.5], [-1], [9], [1] * 5000)
    for record in [*truth["images"], *truth["categories"]]:
        keys = [key for key in record if key not in ("id", "name", "width", "height")]
        if rng.random() < 0.15:
            record[pick(keys, rng)] = pick(odd, rng)
        if rng.random() < 0.03:
            del record[pick(keys, rng)]
    spoilt = pick(("ann", "one", ""), rng)
    for name, content in (("ann", truth), ("one", results)):
        data = mutate(content, rng) if name == spoilt else json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(data)


def write_yolo(folder: Path, rng: Rng, spoilt: str) -> None:
    """``data.yaml``, ``images/``, ``labels/`` and predictions ``found/``; one has something wrong.

    Args:
        folder: an empty folder.
        rng: the source of everything random.
        spoilt: 'yaml', or 'text' for labels, lists, names or predictions.
    """
    write_pictures(folder / "images")
    for place, end in (("labels", ""), ("found", " 0.5")):
        (folder / place).mkdir()
        for name in PICTURES:
            lines = [_line(rng) + end for _ in range(int(rng.integers(4)))]
            (folder / place / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "images.txt").write_text("".join(f"images/{name}.png\n" for name in PICTURES), encoding="utf-8")
    (folder / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    entries = {"path": ".", "train": "images", "val": "images", "nc": "3", "names": "[cat, dog, 猫]"}
    if spoilt == "text" and rng.random() < 0.5:
        entries["val"] = "images.txt"
    text = _spoilt_yaml(entries, rng) if spoilt == "yaml" else "".join(f"{k}: {v}\n" for k, v in entries.items())
    data = text.encode("utf-8", "surrogatepass")
    (folder / "data.yaml").write_bytes(damaged_text(data, rng) if spoilt == "yaml" and rng.random() < 0.2 else data)
    if spoilt == "text":
        path = folder / pick(
            ("labels/1.txt", "labels/1.txt", "found/1.txt", "found/1.txt", "images.txt", "classes.txt"), rng
        )
        lines = path.read_text(encoding="utf-8").splitlines()
        for _ in range(int(rng.integers(1, 4))):
            odd = pick((*LINES, *map(str, FILE_NAMES), *map(str, WORDS)), rng)
            lines.insert(int(rng.integers(len(lines) + 1)), odd)
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        path.write_bytes(damaged_text(data, rng) if rng.random() < 0.3 else data)


def _line(rng: Rng) -> str:
    width, height = rng.uniform(0.1, 0.4, 2)
    numbers = [rng.uniform(width, 1 - width), rng.uniform(height, 1 - height), width, height]
    return f"{rng.integers(3)} " + " ".join(f"{number:.3f}" for number in numbers)


def _spoilt_yaml(entries: dict[str, str], rng: Rng) -> str:
    lines = []
    for key, value in entries.items():
        at = rng.random()
        shown = pick(YAML, rng) if at < 0.25 else value
        lines.append(f"{pick(YAML, rng) if at > 0.97 else key}: {shown}")
    if rng.random() < 0.3:
        lines.insert(int(rng.integers(len(lines) + 1)), pick((*YAML, *(f"x: {value}" for value in YAML)), rng))
    if rng.random() < 0.1:
        lines.insert(0, "a0: &a0 [x, x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30)))
    return "\n".join(lines) + "\n" * int(rng.integers(2))


def write_voc(folder: Path, rng: Rng) -> None:
    """``JPEGImages/``, ``Annotations/``, a list in ``ImageSets/Main/`` and predictions ``found/``; one is spoilt."""
    write_pictures(folder / "JPEGImages")
    (folder / "ImageSets/Main").mkdir(parents=True)
    spoilt = pick(("Annotations", "Annotations", "found", "list"), rng)
    for place in ("Annotations", "found"):
        (folder / place).mkdir()
        for name in PICTURES:
            text = _xml(name, place == "found", rng)
            data = _spoilt_xml(text, rng) if place == spoilt and name == "1" else text.encode()
            (folder / place / f"{name}.xml").write_bytes(data)
    names = [*PICTURES, *(str(pick(FILE_NAMES, rng)) for _ in range(int(rng.integers(1, 3)) * (spoilt == "list")))]
    data = "\n".join(names).encode("utf-8", "surrogatepass")
    (folder / "ImageSets/Main/val.txt").write_bytes(data)


def _xml(name: str, scored: bool, rng: Rng) -> str:
    objects = ""
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.integers(1, WIDTH - 9)), int(rng.integers(1, HEIGHT - 9))
        corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + 8}</xmax><ymax>{y + 8}</ymax>"
        score = "<score>0.5</score>" if scored else "<difficult>0</difficult>"
        objects += f"\n<object><name>{pick(CLASSES, rng)}</name>{score}<bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.png</filename>{size}{objects}\n</annotation>\n"


def _spoilt_xml(text: str, rng: Rng) -> bytes:
    def odd_value(match: re.Match[str]) -> str:
        return f">{pick((*VALUES, *FILE_NAMES), rng)}<" if rng.random() < 0.2 else match[0]

    tag, way = pick(TAGS, rng), int(rng.integers(9))
    if way == 0:
        text = re.sub(r">[^<>\n]+<", odd_value, text)
    elif way == 1:
        text = f'<?xml version="{pick(VERSIONS, rng)}" encoding="{pick(ENCODINGS, rng)}"?>{text}'
    elif way == 2:
        text = pick(DOCTYPES, rng) + text.replace("cat", pick(("&b;", "&a39;", "cat"), rng))
    elif way == 3:
        text = text.replace(f"<{tag}>", pick(("", "<a>", "<a/>", "<object>", "<name>", "< a>", "<a b='"), rng), 1)
    elif way == 4:
        text = text.replace(f"</{tag}>", pick(("", "</a>", "<b/>", "</object>", "]]>", "</"), rng), 1)
    elif way == 5:
        text = text.replace("<object>", f"<object>{'<a>' * int(pick((5, 30, 3000), rng))}", 1)
    elif way == 6:
        text = text.replace("<name>", pick(STARTS, rng), 1)
    elif way == 7:
        text = text.replace("<object>", "<object><name>a</name>" * int(pick((2, 300, 20_000), rng)), 1)
    data = text.encode("utf-8", "surrogatepass")
    if way == 8 or rng.random() < 0.1:
        return data.decode("utf-8", "replace").encode(pick(("utf-16", "utf-16-le", "utf-32", "gbk"), rng), "replace")
    return damaged_text(data, rng) if rng.random() < 0.3 else data

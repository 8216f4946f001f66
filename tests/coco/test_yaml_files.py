"""YAML of data sets: texts, lists and mappings; whatever chooses a type or multiplies is refused in one line."""

from __future__ import annotations

import re

import pytest

from mmms_plugin.coco.formats import class_names
from mmms_plugin.coco.yaml_files import MOST, check_yaml_config, yaml_of
from mmms_plugin.errors import UserError

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
REFUSED = {
    "aliases": (f"{LAUGHS}names: [a, *a29]", "line 2: the alias '*a0'; write the value itself"),
    "alias of itself": ("names: &a [*a]", "line 1: the alias '*a'"),
    "code": ("a: 1\nb: !!python/object/apply:os.system [id]", "line 2: the tag 'tag:yaml.org,2002:python/"),
    "tag of a key": ("!!str a: b", "line 1: the tag 'tag:yaml.org,2002:str'; allowed are texts, lists and mappings"),
    "own tag": ("a: !x\n", "line 1: the tag '!x'"),
    "control characters in a tag": ("a: !<\x1b>", "not YAML"),
    "flow depth": ("[" * 3000, "line 1: nested too deep; allowed are 20 levels"),
    "block depth": ("a:\n- " + "- " * 3000, "line 2: nested too deep"),
    "many values": (f"a: [{'b,' * MOST}]", f"line 1: more than {MOST:,} values"),
    "long": ("#" * (2**20 + 1), "1,048,577 bytes; allowed are 1,048,576 in such a file"),
    "two documents": ("a: b\n---\na: c", "line 2: a second document; allowed is one"),
    "key twice": ("a: b\n'a': c", "line 2: the key 'a' is given twice"),
    "list as a key": ("[a]: b", "line 1: the key ['a']; must be a text"),
    "nothing as a key": ("~: b", "line 1: the key None; must be a text"),
    "no character": (r'a: "\U00110000"', "not YAML"),
    "long version": (f"%YAML 1.{'9' * 5000}\n---\na: b", "not YAML"),
    "no end": ("a: [b", "line 1: not YAML"),
    "UTF-16": ("a: b".encode("utf-16"), "not a text file in UTF-8"),
    "list": ("- a", "not a data set's YAML file"),
    "empty": ("", "not a data set's YAML file"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_yaml_that_chooses_types_or_multiplies_is_one_line(tmp_path, text, words):
    path = tmp_path / "data.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=re.escape(words)) as error:
        yaml_of(path, "--ann")
    assert str(error.value).startswith(f"--ann {path}")
    assert "\n" not in str(error.value)


def test_values_stay_as_they_are_written(tmp_path):
    path = tmp_path / "data.yaml"
    digits = "9" * 5000
    path.write_text(
        f"\ufeffa: [no, 1e3, 007, 2020-13-45, 2020-01-01, 12:30:45, .nan, {digits}, 0x{digits}, '~', \"\"]\n"
        "b: &unused {c: null}\nd:\n<<: {1: 2}\n",
        encoding="utf-8",
    )
    texts = ["no", "1e3", "007", "2020-13-45", "2020-01-01", "12:30:45", ".nan", digits, f"0x{digits}", "~", ""]
    assert yaml_of(path, "--ann") == {"a": texts, "b": {"c": None}, "d": None, "<<": {"1": "2"}}


NAMES = {
    "names: [a, 2020-13-45]": ["a", "2020-13-45"],
    "names: {1: yes, 0: off}": ["off", "yes"],
    f"names: [{'x' * 300}, 5]": ["x" * 300, "5"],
    "names: {0: a, 2: b}": "'names' must be a list, or a mapping from 0, 1, ... to names",
    "names: a": "'names' must be a list",
    "nc: 3": "'names' must be a list",
    "names: []": "0 class names; allowed are 1 to 65,536",
    f"names: [{'a,' * 65_537}]": "65,537 class names; allowed are 1 to 65,536",
    "names: [a, [b]]": "names[1]: ['b']; must be a class name",
    "names: [a, {b: c}]": "names[1]: {'b': 'c'}; must be a class name",
    "names: [a, ~]": "names[1]: None; must be a class name",
    "names: [a, ' ']": "names[1]: ' '; must be a class name",
}


@pytest.mark.parametrize(("text", "expected"), NAMES.items(), ids=range(len(NAMES)))
def test_names_of_classes(tmp_path, text, expected):
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    if isinstance(expected, list):
        assert class_names(path, "--classes") == expected
    else:
        with pytest.raises(UserError, match=re.escape(f"--classes {path}: {expected}")):
            class_names(path, "--classes")


def test_lists_of_names_without_a_name_or_with_too_many(tmp_path):
    path = tmp_path / "classes.txt"
    for count in (0, 65_537):
        path.write_text("a\n" * count, encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(f"{count:,} class names; allowed are 1 to 65,536")):
            class_names(path, "--classes")


def test_configs_may_have_aliases_and_tuples_but_neither_code_nor_bombs(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {b: [1, 2]}\nc: {<<: *a, d: !!python/tuple [1]}\ne: [*a, *a, !!str 1]\n", encoding="utf-8")
    check_yaml_config(path)
    for text, words in (
        (LAUGHS, "line 15: more than 100,000 values"),
        ("a: &a [*a]", "line 1: the alias '*a'"),
        (
            "a: !!python/object/apply:os.system [id]",
            "line 1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(f"config {path}, {words}")):
            check_yaml_config(path)

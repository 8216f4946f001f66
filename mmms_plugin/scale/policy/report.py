"""The report of a scale policy: numbers as JSON, CSV and Parquet, figures as PNG and SVG, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.page import Output, Section, render
from mmms_plugin.scale.policy import figures
from mmms_plugin.scale.policy.dilations import DilationShares
from mmms_plugin.scale.policy.gallery import make_gallery, thumbnails
from mmms_plugin.scale.policy.table import (
    OUTCOMES,
    Row,
    Table,
    by_class,
    by_size,
    compare_answers,
    embed,
    outcome,
    size_correlations,
    write_csv,
    write_parquet,
)
from mmms_plugin.scale.receptive_field import WIDTHS, ReceptiveField
from mmms_plugin.scale.shapes import NetworkShape, draw_shapes, draw_trajectories

FEWEST = 4  # pictures that a map needs
FIGURES = ("blocks", "classes", "map", "sizes", "exits", "exit_examples", "dilations", "shape", "trajectories",
           "receptive_fields", "answers")  # fmt: skip
TABLES = ("pictures.csv", "pictures.parquet", "pictures_compared.csv")
FORMATS = ("png", "svg")
EXAMPLES = 8  # pictures shown for every exit
SCORE = "Mean activation behind the ReLU after the 3x3 layer, high-resolution minus low-resolution branch"


@dataclass(frozen=True)
class Findings:
    """The measurements of one network.

    Attributes:
        title: its name.
        table: of the pictures, without columns if the model has no block or exit to score.
        dilations: of PSConv layers.
        fields: receptive fields of the stages.
        shape: of a Shape Adaptor network.
        trajectories: of its adaptors during training, ``{place: [(iteration, s), ...]}``; empty if unknown.
    """

    title: str
    table: Table
    dilations: Sequence[DilationShares] = ()
    fields: Sequence[ReceptiveField] = ()
    shape: NetworkShape | None = None
    trajectories: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


def write_report(
    out: Path,
    first: Findings,
    second: Findings | None,
    paths: Mapping[str, Path],
    links: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """Write everything into ``out``, all at once or not at all; returns the names of the files except the figures.

    Args:
        out: the folder.
        first: measurements of the network.
        second: of another network on the same pictures, None for none.
        paths: of the pictures, by name.
        links: text and address of related pages.

    Raises:
        UserError: the folder cannot be written to.
    """
    part = _evaluate(first, paths)
    other = None if second is None else second.table
    if second is not None:
        _compare(part, first, second, paths)
    names = ["policy.html", "policy.json"]
    with files_written_together(out) as folder:
        output = Output(folder, FORMATS)
        pictures = [output.figure(name, figure, caption) for name, caption, figure in part.drawn]
        if other is not None and other.rows:
            names.append("pictures_compared.csv")
            write_csv(other, folder / "pictures_compared.csv")
        if first.table.rows:
            names.append("pictures.csv")
            write_csv(first.table, folder / "pictures.csv")
            if write_parquet(first.table, folder / "pictures.parquet"):
                names.append("pictures.parquet")
        write_text(folder / "policy.json", json.dumps(dict(title=first.title, **part.content), indent=1) + "\n")
        gallery = make_gallery(first.table, paths, other) if first.table.rows else None
        sections = [Section("Pictures", gallery=gallery)] if gallery else []
        sections += [Section("Figures", pictures=pictures)] if pictures else []
        page = render(f"{first.title}: scale policy", part.facts, sections, heading=first.title, links=links)
        write_text(folder / "policy.html", page)
        made = {path.name for path in folder.iterdir()}
    for name in _possible_names() - made:  # of an earlier run into the same folder
        (out / name).unlink(missing_ok=True)
    return names


def _possible_names() -> set[str]:
    """Of all files that a report can have, apart from the page and its JSON."""
    stems = [f"{name}{end}" for name in FIGURES for end in ("", "_compared")]
    return {f"{stem}.{kind}" for stem in stems for kind in FORMATS} | set(TABLES)


@dataclass
class _Part:
    """Facts for the page, content of the JSON file, figures with names and captions, and the map of pictures."""

    facts: list[tuple[str, str]]
    content: dict[str, Any]
    drawn: list[tuple[str, str, Figure]]
    points: tuple[NDArray[np.float64], str] | None = None

    def add(self, name: str, caption: str, figure: Figure) -> None:
        assert name in FIGURES, name  # otherwise a later run into the same folder would not remove it
        self.drawn.append((name, caption, figure))


def _evaluate(findings: Findings, paths: Mapping[str, Path]) -> _Part:
    table = findings.table
    part = _Part([], {"kind": table.kind, "columns": table.columns}, [])
    if table.kind == "scale policy":
        part.facts += [("pictures", str(len(table.rows))), ("score S", f"{SCORE} (ELASTIC, section 4.1.1)")]
        _add_policy(part, table)
    elif table.kind == "exits":
        _add_exits(part, table, paths)
    if findings.dilations:
        part.content["dilations"] = [asdict(layer) for layer in findings.dilations]
        caption = "Share of the absolute weights of every dilation, by layer; ticks are the shares of the kernels."
        part.add("dilations", caption, figures.draw_dilations(findings.dilations))
    if findings.shape:
        part.content["shape"] = dict(scales=dict(findings.shape.scales), sides=findings.shape.sides)
        part.add("shape", "Side of the map in front of every layer.", draw_shapes([findings.shape]))
    if findings.trajectories:
        part.content["trajectories"] = {place: list(points) for place, points in findings.trajectories.items()}
        caption = "s of every adaptor during training."
        part.add("trajectories", caption, draw_trajectories(findings.trajectories))
    if findings.fields:
        part.content["receptive_fields"] = [
            {key: value for key, value in asdict(field_).items() if key != "heat"} for field_ in findings.fields
        ]
        part.facts += [(f.name, _sentence(f)) for f in findings.fields]
        caption = (
            "Gradient of the middle cell of every stage (Luo et al., 2016; root of the relative gradient): the circle "
            "is two standard deviations, the dashed square the theoretical receptive field."
        )
        part.add("receptive_fields", caption, figures.draw_fields(findings.fields))
    part.content["pictures"] = table.to_json()["rows"]
    return part


def _compare(part: _Part, first: Findings, second: Findings, paths: Mapping[str, Path]) -> None:
    """Add a second network's measurements, each figure behind the first network's, and where their answers differ."""
    other = _evaluate(second, paths)
    part.facts += [("compared with", second.title), *((f"its {name}", text) for name, text in other.facts)]
    for name, caption, figure in other.drawn:
        places = [i for i, drawn in enumerate(part.drawn) if drawn[0] == name]
        drawn = (f"{name}_compared", f"The same of {second.title}: {caption}", figure)
        part.drawn.insert(places[0] + 1 if places else len(part.drawn), drawn)
    answers = compare_answers(first.table, second.table)
    part.content["compared"] = dict(
        title=second.title, outcomes=OUTCOMES, answers=[asdict(group) for group in answers], **other.content
    )
    if answers and first.table.columns and len(first.table.rows) >= FEWEST:
        points, method = part.points or embed(first.table)
        rows = {row.name: row for row in second.table.rows}
        outcomes = [outcome(row, rows[row.name]) if row.name in rows else None for row in first.table.rows]
        caption = (
            f"Density of all pictures by the first network's scores ({method}), and of those that one network alone "
            "gets right (Figure 6, right)."
        )
        part.add("answers", caption, figures.draw_answers(outcomes, points, method))


def _add_policy(part: _Part, table: Table) -> None:
    part.add("blocks", "Scores of all pictures at every block (Figure 6, middle).", figures.draw_blocks(table))
    if classes := by_class(table):
        part.content["classes"] = [asdict(group) for group in classes]
        caption = "Overall score of every class, sorted (Figure 5)."
        part.add("classes", caption, figures.draw_classes(classes))
    if len(table.rows) >= FEWEST:
        part.points = points, method = embed(table)
        part.content["map"] = dict(method=method, points=np.round(points, 4).tolist())
        caption = f"Every picture by its scores at all blocks: {method} (Figure 6)."
        part.add("map", caption, figures.draw_map(table, points, method))
    correlations = size_correlations(table)
    if correlations is not None:
        part.content["sizes"] = [asdict(group) for group in by_size(table)]
        part.content["size_correlations"] = correlations
        caption = "Scores against the sizes of the objects that a picture shows."
        part.add("sizes", caption, figures.draw_sizes(table, correlations))


def _add_exits(part: _Part, table: Table, paths: Mapping[str, Path]) -> None:
    counts = np.bincount(table.exits, minlength=len(table.columns)).tolist()
    left = ", ".join(f"{name}: {count}" for name, count in zip(table.columns, counts, strict=True))
    part.facts += [("pictures", str(len(table.rows))), ("left at", f"{left} (confidence of {table.threshold:g})")]
    part.content["left"] = counts
    part.add("exits", "Number of pictures that leave at each exit.", figures.draw_exits(table))
    caption = "Examples of the pictures that leave at each exit, with its answers; wrong ones are pink."
    groups = [(name, [row for row, place in zip(table.rows, table.exits, strict=True) if place == i])
              for i, name in enumerate(table.columns)]  # fmt: skip
    part.add("exit_examples", caption, figures.draw_examples([_examples(*group, paths) for group in groups]))


def _examples(name: str, rows: Sequence[Row], paths: Mapping[str, Path]) -> tuple[str, int, list[figures.Example]]:
    """The exit's name, the number of pictures that leave there, and evenly spaced examples of them."""
    count = min(EXAMPLES, len(rows))
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    tiles = thumbnails([paths[row.name] for row in chosen])
    return name, len(rows), list(zip(chosen, tiles, strict=True))


def _sentence(field_: ReceptiveField) -> str:
    theory = f"above {WIDTHS[-1]}" if field_.theoretical is None else str(field_.theoretical)
    cut = ", cut off by the picture" if field_.cut else ""
    return (
        f"stride {field_.stride}; receptive field {theory} px in theory; effective {2 * field_.two_sigma:.0f} px (two "
        f"standard deviations to each side), {field_.side:.0f} px (gradient above 4.55 % of the largest{cut})"
    )

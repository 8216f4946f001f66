"""Numbers as JSON, CSV and Parquet, figures as PNG and SVG, and the page, all at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mmms_plugin.analysis.figure_style import save
from mmms_plugin.analysis.receptive_field import WIDTHS, ReceptiveField
from mmms_plugin.analysis.scale_policy import figures
from mmms_plugin.analysis.scale_policy.answers import OUTCOMES, compare_answers, outcome
from mmms_plugin.analysis.scale_policy.dilations import DilationShares
from mmms_plugin.analysis.scale_policy.page import Shown, render, shown, thumbnails
from mmms_plugin.analysis.scale_policy.summary import by_class, by_size, embed, size_correlations
from mmms_plugin.analysis.scale_policy.table import Row, Table, write_csv, write_parquet
from mmms_plugin.analysis.shapes import NetworkShape, draw_shapes, draw_trajectories
from mmms_plugin.files import files_written_together, write_text

FEWEST = 4  # pictures that a map needs
EXAMPLES = 8  # pictures that are shown of every exit
SCORE = "Mean activation behind the ReLU after the 3x3 layer, high-resolution minus low-resolution branch"


@dataclass(frozen=True)
class Measured:
    """All that a report is made of.

    Attributes:
        table: of the pictures, without columns where the model has no block or exit to score. paths: of the pictures.
        dilations: of PSConv layers. fields: of the stages. shape: of a Shape Adaptor network.
        trajectories: of its adaptors while it was trained, ``{place: [(iteration, s), ...]}``; empty where unknown.
        other: of a second network on the same pictures. other_title: its name.
    """

    table: Table
    paths: Mapping[str, Path]
    dilations: Sequence[DilationShares] = ()
    fields: Sequence[ReceptiveField] = ()
    shape: NetworkShape | None = None
    trajectories: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    other: Table | None = None
    other_title: str = ""


def write_report(out: Path, title: str, measured: Measured) -> list[str]:
    """Write everything into ``out``; returns the names of the files, without those of the figures.

    Raises: UserError if the folder cannot be written to.
    """
    facts, content, drawn = _evaluate(measured)
    names = ["policy.html", "policy.json"]
    with files_written_together(out) as folder:
        pictures = [_draw(folder, name, caption, figure) for name, caption, figure in drawn]
        if measured.other is not None and measured.other.rows:
            names.append("pictures_compared.csv")
            write_csv(measured.other, folder / "pictures_compared.csv")
        if measured.table.rows:
            names.append("pictures.csv")
            write_csv(measured.table, folder / "pictures.csv")
            if write_parquet(measured.table, folder / "pictures.parquet"):
                names.append("pictures.parquet")
        write_text(folder / "policy.json", json.dumps(dict(title=title, **content), indent=1) + "\n")
        page = render(title, facts, pictures, measured.table, measured.paths, measured.other)
        write_text(folder / "policy.html", page)
    return names


def _draw(folder: Path, name: str, caption: str, figure: Figure) -> Shown:
    width = round(figure.get_figwidth() * 110)
    png, *_ = save(figure, folder, name, figures.FORMATS)
    return shown(png, caption, width)


Drawn = tuple[str, str, Figure]


def _evaluate(measured: Measured) -> tuple[list[tuple[str, str]], dict[str, Any], list[Drawn]]:
    """Facts for the page, content of the JSON file, and figures with their names and captions."""
    table = measured.table
    facts: list[tuple[str, str]] = []
    content: dict[str, Any] = {"kind": table.kind, "columns": table.columns}
    drawn: list[Drawn] = []
    if table.kind == "scale policy":
        facts += [("pictures", str(len(table.rows))), ("score", f"{SCORE} (ELASTIC, section 4.1.1)")]
        _policy(table, content, drawn)
    elif table.kind == "exits":
        counts = np.bincount(table.exits, minlength=len(table.columns)).tolist()
        left = ", ".join(f"{name}: {count}" for name, count in zip(table.columns, counts, strict=True))
        facts += [("pictures", str(len(table.rows))), ("left at", f"{left} (confidence of {table.threshold:g})")]
        content["left"] = counts
        drawn.append(("exits", "Pictures that leave at each exit.", figures.draw_exits(table)))
        groups = [(name, [row for row, left in zip(table.rows, table.exits, strict=True) if left == place])
                  for place, name in enumerate(table.columns)]  # fmt: skip
        drawn.append(_examples(groups, measured.paths))
    if measured.other is not None:
        facts.append(("compared with", measured.other_title))
        _comparison(measured, content, drawn)
    if measured.dilations:
        content["dilations"] = [asdict(layer) for layer in measured.dilations]
        caption = "Share of the absolute weights of every dilation, by layer; ticks are the shares of the kernels."
        drawn.append(("dilations", caption, figures.draw_dilations(measured.dilations)))
    if measured.shape:
        content["shape"] = dict(scales=dict(measured.shape.scales), sides=measured.shape.sides)
        drawn.append(("shape", "Side of the map in front of every layer.", draw_shapes([measured.shape])))
    if measured.trajectories:
        content["trajectories"] = {place: list(points) for place, points in measured.trajectories.items()}
        caption = "s of every adaptor while the network was trained."
        drawn.append(("trajectories", caption, draw_trajectories(measured.trajectories)))
    if measured.fields:
        content["receptive_fields"] = [_numbers(one) for one in measured.fields]
        facts += [(f.name, _sentence(f)) for f in measured.fields]
        caption = (
            "Gradient of the middle cell of every stage (Luo et al., 2016; root of the relative gradient): the circle "
            "is two standard deviations, the dashed square the theoretical receptive field."
        )
        drawn.append(("receptive_fields", caption, figures.draw_fields(measured.fields)))
    content["pictures"] = table.to_json()["rows"]
    return facts, content, drawn


def _comparison(measured: Measured, content: dict[str, Any], drawn: list[Drawn]) -> None:
    first, second = measured.table, measured.other
    assert second is not None
    if second.kind == "scale policy":
        caption = f"Scores of all pictures at every block of {measured.other_title}."
        drawn.append(("blocks_compared", caption, figures.draw_blocks(second)))
    answers = compare_answers(first, second)
    content["compared"] = dict(
        title=measured.other_title, columns=second.columns, outcomes=OUTCOMES,
        answers=[asdict(one) for one in answers], pictures=second.to_json()["rows"],
    )  # fmt: skip
    if answers and first.columns and len(first.rows) >= FEWEST:
        rows = {row.name: row for row in second.rows}
        outcomes = [outcome(row, rows[row.name]) if row.name in rows else None for row in first.rows]
        points, method = embed(first)
        caption = (
            f"Density of all pictures by the first network's scores ({method}), and of those that one network alone "
            "gets right (Figure 6, right)."
        )
        drawn.append(("answers", caption, figures.draw_answers(outcomes, points, method)))


def _policy(table: Table, content: dict[str, Any], drawn: list[Drawn]) -> None:
    drawn.append(("blocks", "Scores of all pictures at every block (Figure 6, middle).", figures.draw_blocks(table)))
    if classes := by_class(table):
        content["classes"] = [asdict(group) for group in classes]
        caption = "Overall score of every class, sorted (Figure 5)."
        drawn.append(("classes", caption, figures.draw_classes(classes)))
    if len(table.rows) >= FEWEST:
        points, method = embed(table)
        content["map"] = dict(method=method, points=np.round(points, 4).tolist())
        caption = f"Every picture by its scores at all blocks: {method} (Figure 6)."
        drawn.append(("map", caption, figures.draw_map(table, points, method)))
    correlations = size_correlations(table)
    if correlations is not None:
        content["sizes"] = [asdict(group) for group in by_size(table)]
        content["size_correlations"] = correlations
        caption = "Scores against the sizes of the objects that a picture shows."
        drawn.append(("sizes", caption, figures.draw_sizes(table, correlations)))


def _examples(groups: Sequence[tuple[str, Sequence[Row]]], paths: Mapping[str, Path]) -> Drawn:
    """Pictures that leave at every exit, evenly spread over those that do."""
    shown_rows = []
    for name, rows in groups:
        count = min(EXAMPLES, len(rows))
        chosen = [rows[i * len(rows) // count] for i in range(count)]
        tiles = thumbnails([paths[row.name] for row in chosen])
        shown_rows.append((name, len(rows), list(zip(chosen, tiles, strict=True))))
    caption = "Examples of the pictures that leave at each exit, with its answer, pink where it is wrong."
    return "exit_examples", caption, figures.draw_examples(shown_rows)


def _numbers(one: ReceptiveField) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "heat"}


def _sentence(one: ReceptiveField) -> str:
    theory = f"above {WIDTHS[-1]}" if one.theoretical is None else str(one.theoretical)
    cut = ", cut off by the picture" if one.cut else ""
    return (
        f"stride {one.stride}; receptive field {theory} px in theory; effective {2 * one.two_sigma:.0f} px (two "
        f"standard deviations to each side), {one.side:.0f} px (gradient above 4.55 % of the largest{cut})"
    )

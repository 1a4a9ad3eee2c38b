"""Sections on training: its length, batches left out of it, and classifiers on batches left out."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.benchmark.report._figures import PANEL_WIDTH, Figure, Panel, draw_heat_map
from fedscgen.benchmark.report._parts import Album, dot_panels, fold, score_table
from fedscgen.benchmark.report._results import metrics_of, split_by
from fedscgen.pl import LABEL_COLOURS, SITE_COLOURS, Group, draw_cells, make_marks
from fedscgen.report.groups import legend, scatter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from fedscgen.benchmark.report._results import Results

_TUNED = ("total", "bio", "batch", "NMI", "ASW_B", "kBET")
_ROW_HEIGHT = 0.22  # inches, of a heat map
_PIXELS = 600  # of a picture: there may be many


@dataclass(frozen=True)
class _Picture:
    """Cells in the plane, after one method."""

    method: str
    layout: np.ndarray
    batch: Group
    label: Group


def tuning(results: Results, album: Album) -> str:
    """Heat maps of rounds x epochs for each method and data set."""
    scores = results.of_kind("tuning")
    scores = scores.dropna(subset=["n_rounds", "n_epochs"])
    if not len(scores):
        return ""
    parts = []
    for title, part in split_by(scores, ["experiment", "dataset", "scenario", "method"]):
        found = metrics_of(part.dropna(subset="value"))
        chosen = [name for name in _TUNED if name in found] or found[: len(_TUNED)]
        panels = [_heat_map(name, part[part["metric"] == name]) for name in chosen]
        parts.append((title, album.show(Figure(f"tuning_{title}", panels, 3, {}))))
    return (
        "<p>How long should sites train? Each cell is a length of training: the rounds from top to bottom, the epochs "
        "that every site trains in a round from left to right. The number is the mean over seeds; brighter is better, "
        "and the orange frame marks the best. Every chart has its own scale of shades, from its lowest value to its "
        f"highest.</p>{fold(parts)}"
    )


def _heat_map(metric: str, scores: pd.DataFrame) -> Panel:
    grid = scores.groupby(["n_rounds", "n_epochs"])["value"].mean().unstack()
    values = grid.to_numpy()
    rows, columns = ([f"{int(n)}" for n in axis] for axis in (grid.index, grid.columns))
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    alt = (
        f"{metric} by rounds and epochs per round: from {np.nanmin(values):.3f} to {np.nanmax(values):.3f}, best with "
        f"{rows[row]} rounds of {columns[column]} epochs"
    )
    draw = partial(draw_heat_map, values=values, rows=rows, columns=columns)
    return Panel(metric, alt, draw, 0.5 + _ROW_HEIGHT * len(rows))


def batch_out(results: Results, album: Album) -> str:
    """Scores and pictures of every batch that was left out of training."""
    scores = results.of_kind("batch_out")
    if not len(scores):
        return ""
    parts = []
    for title, part in split_by(scores, ["experiment", "dataset", "scenario", "held_out"]):
        table = score_table(part, "metric", metrics_of(part), results.methods)
        methods = dict(zip(part["task"], part["method"], strict=True))
        files = {methods[path.stem]: path for path in results.pictures if path.stem in methods}
        files = {name: files[name] for name in results.methods if name in files}
        parts.append((title, table + _show_pictures(title, files, part["held_out"].iloc[0], album)))
    return (
        "<p>One batch takes no part in training and is corrected afterwards, like a hospital that joins later. Numbers "
        "and pictures are of all batches together, the one left out included; the tables read as those under "
        "Integration. In the pictures each dot is a cell of the first seed's run: after a good correction the batches "
        "mix, the one left out among them, while cell types stay apart. Distances between far-apart groups, and the "
        f"axes, carry no meaning.</p>{fold(parts)}"
    )


def _show_pictures(title: str, files: Mapping[str, Path], held_out: str, album: Album) -> str:
    """A pair of scatter plots for each method, by batch and by cell type, under common legends."""
    pictures = [_make_picture(method, _read_picture(path), held_out) for method, path in files.items()]
    if not pictures:
        return ""
    batch, label = pictures[0].batch, pictures[0].label
    panels, shown = [], []
    for picture in pictures:
        pair = []
        for what, cells, numbered in (("batch", picture.batch, False), ("cell type", picture.label, True)):
            caption = f"{picture.method}, by {what}"
            alt = f"UMAP of {len(picture.layout):,} cells, {caption}: {', '.join(cells.names)}"
            pair.append(scatter(caption, alt, picture.layout, cells, numbered=numbered, pixels=_PIXELS))
            draw = partial(
                draw_cells, layout=picture.layout, codes=cells.codes, palette=cells.marks, inches=PANEL_WIDTH
            )
            panels.append(Panel(caption, alt, draw, PANEL_WIDTH))
        shown.append(f"<div class='pair'>{''.join(pair)}</div>")
    marked = {f"batch {name}": mark for name, mark in zip(batch.names, batch.marks, strict=True)}
    marked |= dict(zip(label.names, label.marks, strict=True))
    album.save(Figure(f"umap_{title}", panels, 4, marked))
    return (
        f"<h4>Batches</h4>{legend(batch)}<h4>Cell types</h4>{legend(label, numbered=True)}{''.join(shown)}"
        "<p class='note'>A number marks the middle of each type, or stands beside it.</p>"
    )


def _read_picture(path: Path) -> dict[str, np.ndarray]:
    names = ("layout", "batch", "label", "batch_names", "label_names")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} isn't whole, or no picture ({type(error).__name__}): delete it to do without"
        ) from error


def _make_picture(method: str, cells: dict[str, np.ndarray], held_out: str) -> _Picture:
    batches = tuple(f"{name} (held out)" if name == held_out else str(name) for name in cells["batch_names"])
    labels = tuple(map(str, cells["label_names"]))
    return _Picture(
        method=method,
        layout=cells["layout"],
        batch=Group(batches, tuple(make_marks(len(batches), SITE_COLOURS)), cells["batch"]),
        label=Group(labels, tuple(make_marks(len(labels), LABEL_COLOURS)), cells["label"]),
    )


def classification(results: Results, album: Album) -> str:
    """Accuracy and AUC of classifiers on the batch that was left out."""
    scores = results.of_kind("classification")
    if not len(scores):
        return ""
    parts = []
    for title, part in split_by(scores, ["experiment", "dataset", "scenario"]):
        parts.append((title, _classification_part(title, part, results, album)))
    return (
        "<p>A classifier learns cell types from the corrected cells of all batches but one, and is asked for the types "
        "of the one left out. <b>Mind:</b> as in the published experiment, the labels of the batch left out take part "
        "in its own correction. The numbers compare methods; they don't say how well cells without labels would be "
        f"classified.</p>{fold(parts)}"
    )


def _classification_part(title: str, scores: pd.DataFrame, results: Results, album: Album) -> str:
    scores = scores.assign(measure=scores["classifier"] + " " + scores["metric"]).dropna(subset="value")
    batches = list(dict.fromkeys(scores["held_out"]))
    measures = [
        measure
        for metric in metrics_of(scores)
        for measure in dict.fromkeys(scores.loc[scores["metric"] == metric, "measure"])
    ]
    drawn = results.marks_of(scores)
    panels = dot_panels(scores, split="measure", names=measures, rows="held_out", row_names=batches, marks=drawn)
    tables = [("mean over the batches left out", scores)] if len(batches) > 1 else []
    tables += split_by(scores, ["held_out"])
    shown = [(name, score_table(part, "measure", measures, results.methods)) for name, part in tables]
    return album.show(Figure(f"classification_{title}", panels, 3, drawn)) + fold(shown)

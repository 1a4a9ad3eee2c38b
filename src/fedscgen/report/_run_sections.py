"""The sections of a run's report as HTML. Whatever comes from data passes through :func:`text`."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from fedscgen import __version__
from fedscgen._words import quantity
from fedscgen.metrics import BATCH_CORRECTION, BIO_CONSERVATION, list_metrics
from fedscgen.pl import SITE_COLOURS, Group, make_marks, scores
from fedscgen.pl import ledger as draw_ledger
from fedscgen.pl import moves as draw_moves
from fedscgen.pl import training as draw_training
from fedscgen.report._figures import show_figure
from fedscgen.report.page import pairs, text, volume
from fedscgen.secure import Protection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd

    from fedscgen.pl import Loss

_SERVER = "server"
_PACKAGES = ("scvi-tools", "torch", "anndata", "scanpy", "umap-learn", "scikit-learn", "numpy")
_METRICS = {
    "ASW_B": ("Silhouette, batch", "cells of one type overlap across sites"),
    "kBET": ("kBET", "neighbourhoods within a type hold the sites in its proportions"),
    "iLISI": ("iLISI", "neighbours come from many sites"),
    "cLISI": ("cLISI", "neighbours are of one type"),
    "GC": ("Graph connectivity", "cells of one type hang together"),
    "ASW_C": ("Silhouette, cell type", "different types lie apart"),
    "NMI": ("NMI", "k-means clusters find the cell types again: shared information"),
    "ARI": ("ARI", "the same, by pairs of cells"),
}
_NEIGHBORHOODS = ("kBET", "iLISI", "cLISI")
_GROUPS = {
    "Batch correction": (*BATCH_CORRECTION, "kBET", "iLISI"),
    "Bio conservation": (*BIO_CONSERVATION, "cLISI"),
}
_EXPLANATIONS = {word.value: word.explanation for word in Protection}
_UNKNOWN = "unknown word: count it as not protected"


def is_from_site(ledger: pd.DataFrame) -> pd.Series:
    """Whether a site sent each message, as a boolean column."""
    return ledger["sender"].astype(str) != _SERVER


def lead(history: pd.DataFrame, settings: Mapping[str, Any], *, recorded: bool, simulated: bool) -> str:
    """Say in plain sentences what was done and how to read it; ``recorded``: there is a ledger."""
    paragraphs = [
        f"<p>Cells measured at different sites differ for technical reasons as well as biological ones. "
        f"{_describe_run(history, settings, recorded)} {_describe_correction(settings.get('reference'))}</p>",
        "<p><b>How to read this page.</b> After a good correction the sites mix within every cell type, while "
        "different cell types stay apart. The pictures show it, the table measures it.</p>",
    ]
    if simulated:
        paragraphs.append(
            "<p class='note'>The cells are real. Their distribution over sites and the site effects are simulated, so "
            "that the right answer is known.</p>"
        )
    return "\n".join(paragraphs)


def lost_labels() -> str:
    """Say that labels had no part in the correction."""
    return (
        "<p class='note'><b>Cells moved without labels</b>, and none was given the name of a type: no cell has a "
        "label, or no cell type has enough labelled cells at enough sites. If cells have labels, check that they are "
        "spelled alike at all sites.</p>"
    )


def note(sentence: str) -> str:
    """A remark below the lead."""
    return f"<p class='note'>{text(sentence)}</p>"


def list_moved(types: pd.DataFrame) -> str:
    """Cells of each site and type, how many moved, and why others didn't."""
    if types.empty:
        return "<p>The model doesn't tell which cells moved.</p>"
    n_cells, n_moved = (int(types[column].sum()) for column in ("n_cells", "n_moved"))
    size = (2.5 + 0.9 * types["site"].nunique(), 1.5 + 0.35 * types["cell_type"].nunique())
    alt = f"Numbers of cells by site and type, shaded by the share that moved: {n_moved:,} of {n_cells:,} in all"
    figure = show_figure("moves", "Share that moved", alt, lambda ax: draw_moves(types, ax=ax), size)
    rows = "".join(
        f"<tr><th scope='row'>{text(row.site)}</th><td>{text(row.cell_type)}</td>"
        f"<td class='number'>{row.n_cells:,}</td>"
        f"<td class='number'>{row.n_moved:,}</td><td class='remark'>"
        f"{text(row.why)}{text(f' (is it {row.like}?)' if row.like else '')}"
        "</td></tr>"
        for row in types.itertuples(index=False)
    )
    return (
        f"<p>Of {n_cells:,} cells, {n_moved:,} have another place than before the correction. A cell that didn't move "
        f"isn't corrected.</p>{figure}<div class='scroll'><table><thead><tr><th scope='col'>Site</th><th scope='col'>"
        "Cell type</th><th scope='col' class='number'>Cells</th>"
        "<th scope='col' class='number'>Moved</th><th scope='col'>Remark"
        f"</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _describe_correction(reference: str | None) -> str:
    if reference == "landmarks":
        return (
            "What each site adds to all of its cells, and to those near each of the places that the sites have in "
            "common in the model's latent space, was then removed."
        )
    return (
        "The cells of every type that several sites hold were then moved to that type's common place in the model's "
        "latent space."
    )


def _describe_run(history: pd.DataFrame, settings: Mapping[str, Any], recorded: bool) -> str:
    if settings.get("n_rounds") == 0:
        return (
            "Here nothing was trained: the sites found the principal components of all their cells together, or used "
            "a model that was given."
        )
    n_sites, n_rounds = history["site"].nunique(), history["round"].nunique()
    if n_sites < 2:
        return "Here one model was trained in one place." if n_sites else "Here a model that existed already was used."
    exchanged = (
        "only what is listed under <a href='#ledger'>What left the sites</a> was exchanged"
        if recorded
        else "the sites exchanged the model's weights, not cells"
    )
    return (
        f"Here {n_sites} sites trained one model together over {quantity(n_rounds, 'round')}: each trained it on its "
        f"own cells, and {exchanged}."
    )


def cells(n_all: int, n_shown: int | None, *, n_components: int, embedding: str) -> str:
    """Say how to read the pictures; ``n_shown``: so many of the cells were chosen at random."""
    sample = ""
    if n_shown is not None:
        sample = (
            f" Of the {n_all:,} cells, {n_shown:,} chosen at random are shown here, and the numbers below are measured "
            "on these."
        )
    return (
        "<p>Each dot is a cell; cells with similar expression lie close together. The left picture shows the cells as "
        f"measured (the first {n_components} principal components of the expression), the right one the corrected "
        f"latent space (<code>{text(embedding)}</code>). Distances between far-apart groups, and the axes, carry no "
        f"meaning: look at neighbourhoods only.{sample}</p>"
    )


def metrics(table: pd.DataFrame, n_cells: int, missing: str = "") -> str:
    """Before, after and change of each metric, and what it was scored on.

    ``table`` has the rows ``"before"`` and ``"after"``, ``missing`` says why some metrics aren't in it.
    """
    rows, columns = [], []
    for name, members in _GROUPS.items():
        shown = [metric for metric in members if metric in table]
        means = table[shown].mean(axis=1)  # of those that have a value
        title = f"{name} <small>plain mean of the {len(shown)} below</small>"
        rows.append(_metric_row(title, means["before"], means["after"], "mean"))
        for metric in shown:
            label, meaning = _METRICS[metric]
            small = f"{text(meaning)}; scored on {text(list_metrics()[metric].scored_on)}"
            title = f"{text(label)}<br><small>{small}</small>"
            rows.append(_metric_row(title, table.loc["before", metric], table.loc["after", metric]))
        columns += shown
    left_out = f"<p class='note'>{', '.join(_NEIGHBORHOODS)} are not here: {text(missing)}.</p>" if missing else ""
    alt = f"Scores before and after correction by metric: {', '.join(columns)}"
    size = (1.8 + 0.75 * len(columns), 3.4)
    figure = show_figure("scores", "The same as a table", alt, lambda ax: scores(table[columns], ax=ax), size)
    return (
        "<p>Every number runs from 0 to 1, and higher is better. <b>Batch correction</b> says how well the sites mix, "
        "<b>bio conservation</b> how well cell types stay apart; a correction that only mixes, or only separates, "
        "scores on one of them alone. Scaled as in scib-metrics (Luecken et al. 2022), whose means are of other "
        f"metrics: don't compare the means with those of other tools. Scored on {n_cells:,} cells with a label, before "
        "correction in the principal components and afterwards in the corrected latent space.</p>"
        "<div class='scroll'><table><thead><tr><th scope='col'>Metric</th><th scope='col' class='number'>Before</th>"
        "<th scope='col' class='number'>After</th><th scope='col' class='number'>Change</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{left_out}{figure}"
    )


def _metric_row(title: str, before: float, after: float, kind: str = "") -> str:
    change = round(after, 3) - round(before, 3)
    arrow, tone = ("▲", "good") if change > 0 else ("▼", "bad") if change < 0 else ("", "")
    shown = [f"{before:.3f}", f"{after:.3f}", f"{arrow} {change:+.3f}"]
    first, second, third = ("–" if "nan" in value else value for value in shown)
    return (
        f"<tr class='{kind}'><th scope='row'>{title}</th><td class='number'>{first}</td>"
        f"<td class='number'>{second}</td><td class='number {tone}'>{third}</td></tr>"
    )


def training(history: pd.DataFrame, sites: Group) -> str:
    """Loss and validation loss of every site against rounds, or against epochs where there was one round."""
    if not len(history):
        return "<p>No training was recorded.</p>"
    names = list(dict.fromkeys(history["site"].astype(str)))
    palette = {name: mark.colour for name, mark in zip(sites.names, sites.marks, strict=True)}
    if not set(names) <= set(palette):
        palette = {name: mark.colour for name, mark in zip(names, make_marks(len(names), SITE_COLOURS), strict=True)}
    titles: dict[Loss, str] = {"train_loss": "Training loss", "validation_loss": "Validation loss"}
    shown = [column for column in titles if np.isfinite(history[column].to_numpy(dtype=float)).any()]
    figures = [_chart(history, palette, column, titles[column]) for column in shown]
    averaged = (
        "Every site trains on its own cells; after each round the weights are averaged, so that small steps between "
        "rounds are normal. "
        if len(names) > 1
        else ""
    )
    kept_out = "Validation loss is measured on cells kept out of training." if "validation_loss" in shown else ""
    if kept_out and "federation_loss" in history:
        kept_out += " The federation's is that over all sites, of the weights that a round began with."
    return (
        "<p>The loss measures how far the model's reconstruction of a cell is from the cell itself: lower is better, "
        f"and the curves should fall and level off. {averaged}{kept_out}</p>"
        f"<div class='pair'>{''.join(figures)}</div>"
    )


def _chart(history: pd.DataFrame, palette: Mapping[str, str], column: Loss, title: str) -> str:
    known = history[np.isfinite(history[column].to_numpy(dtype=float))]
    last = [
        f"{name} from {own.iloc[0]:.3g} to {own.iloc[-1]:.3g}"
        for name, own in known.sort_values(["round", "epoch"], kind="stable").groupby("site", sort=False)[column]
    ]
    if column == "validation_loss" and "federation_loss" in history:
        rounds = history.groupby("round")["federation_loss"].first()
        last.append(f"federation from {rounds.iloc[0]:.3g} to {rounds.iloc[-1]:.3g}")
    unit = "round" if history["round"].nunique() > 1 else "epoch"
    alt = f"{title} by {unit}: {'; '.join(last)}"
    return show_figure(column, title, alt, lambda ax: draw_training(history, loss=column, palette=palette, ax=ax))


def ledger(table: pd.DataFrame | None) -> str:
    """Messages by kind, sender, receiver and protection: how many, and how large."""
    if table is None or not len(table):
        return "<p>No ledger of messages was recorded for this run.</p>"
    sent = is_from_site(table)
    columns = {
        "to_site": ~sent,  # what left the sites comes first
        "kind": table["kind"].astype(str),
        "route": _roles(table["sender"]) + " → " + _roles(table["receiver"]),
        "protection": _words(table),
    }
    summary = table["bytes"].groupby(list(columns.values()), sort=False).agg(["size", "sum"])
    summary = summary.rename_axis(list(columns)).sort_index(level="to_site", sort_remaining=False, kind="stable")
    rows = "".join(
        f"<tr><th scope='row'>{text(kind)}</th><td class='route'>{route}</td><td class='number'>{size:,}</td>"
        f"<td class='number'>{volume(total)}</td><td class='remark'>{_protection(protection)}</td></tr>"
        for (_, kind, route, protection), (size, total) in zip(summary.index, summary.to_numpy(), strict=True)
    )
    to_server = table[sent & (table["receiver"] == _SERVER)]
    figure = ""
    if len(to_server):
        kinds = ", ".join(map(str, to_server["kind"].unique()))
        alt = f"Megabytes that left the sites for the coordinator by kind: {kinds}"
        known = to_server.assign(protection=_words(to_server), kind=to_server["kind"].astype(str))
        size = (6.5, 1.2 + 0.35 * known["kind"].nunique())
        figure = show_figure("ledger", "What went to the coordinator", alt, lambda ax: draw_ledger(known, ax=ax), size)
    return (
        f"{_ledger_lead(table[sent])}{figure}<div class='scroll'><table><thead><tr><th scope='col'>What</th>"
        "<th scope='col'>From → to</th><th scope='col' class='number'>Messages</th>"
        "<th scope='col' class='number'>Volume</th><th scope='col'>Protection</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _ledger_lead(sent: pd.DataFrame) -> str:
    words = _words(sent)
    open_bytes = sent.loc[(words == Protection.NONE) | ~words.isin(list(_EXPLANATIONS)), "bytes"].sum()
    openly = (
        f"{volume(open_bytes)} of it had no protection: whoever received it could read it."
        if open_bytes
        else "None of it went unprotected."
    )
    return (
        f"<p>The sites sent {quantity(len(sent), 'message')}, {volume(sent['bytes'].sum())} in all. {openly} Transport "
        "encryption, where there was any, comes on top and isn't counted here.</p>"
    )


def _roles(column: pd.Series) -> pd.Series:
    return column.astype(str).map(lambda name: "coordinator" if name == _SERVER else "site")


def _words(table: pd.DataFrame) -> pd.Series:
    """The word for each message's protection; where none is said, that for no protection."""
    words = table["protection"].astype(object)
    return words.where(words.notna() & (words != ""), Protection.NONE.value).astype(str)


def _protection(word: str) -> str:
    explanation = _EXPLANATIONS.get(word)
    if explanation is None:
        return f"{text(word)} <small class='bad'>{text(_UNKNOWN)}</small>"
    return f"{text(word)} <small>{text(explanation)}</small>"


def warnings(messages: Sequence[str] | None) -> str:
    """What was warned of in the run."""
    if messages is None:
        return "<p>Nobody kept what was warned of in the run.</p>"
    if not messages:
        return "<p>The run gave no warning.</p>"
    return f"<ul>{''.join(f'<li>{text(message)}</li>' for message in messages)}</ul>"


def settings(values: Mapping[str, Any] | None, inputs: Sequence[str] = ()) -> str:
    """Tables: what the run was made from and asked to do, and the versions that did it."""
    versions = {"Python": platform.python_version(), "fedscgen": __version__} | {
        package: version(package) for package in _PACKAGES
    }
    shown = {name: "not set" if value in (None, ()) else value for name, value in (values or {}).items()}
    given = pairs("Settings", shown) if shown else "<div><h3>Settings</h3><p>None were recorded.</p></div>"
    read = "".join(f"<li><code>{text(each)}</code></li>" for each in inputs)
    source = f"<ul>{read}</ul>" if read else "<p>It wasn't recorded from what file the cells come.</p>"
    return f"<h3>Input</h3>{source}<div class='columns'>{given}{pairs('Versions', versions)}</div>"

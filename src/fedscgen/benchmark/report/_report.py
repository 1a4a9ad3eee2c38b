"""One self-contained HTML page about a benchmark, and its figures as files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen._files import create_whole
from fedscgen.benchmark.report import _integration as integrations
from fedscgen.benchmark.report import _protocols as protocols
from fedscgen.benchmark.report import _run as runs
from fedscgen.benchmark.report import _training as trainings
from fedscgen.benchmark.report._parts import Album
from fedscgen.benchmark.report._results import read_results
from fedscgen.report.page import section, text, write_page

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from fedscgen.benchmark.report._results import Results

logger = logging.getLogger(__name__)


def write_benchmark_report(folder: str | os.PathLike[str]) -> Path:
    """Write a report of a benchmark as one HTML file that needs neither scripts nor the network.

    It shows whatever the folder holds results of, and begins with what was scored on labels that no method had seen;
    what was scored with the labels that methods were given is marked so. There are scores of all methods, differences
    to the baseline with their tests, LISI over cells, the tuning of the length of training, batches left out of
    training, classifiers, cost, failures, settings and versions. A benchmark that isn't finished may be reported, too.

    Parameters
    ----------
    folder
        A benchmark's results: ``plan.json`` and ``results.csv``, and where there are any ``distributions.csv``,
        ``comparisons.csv``, ``failures.csv`` and ``pictures/*.npz``. The page goes to ``report.html`` in it, and
        every figure to ``figures/`` as SVG and PNG; both are replaced when all has been drawn, or not at all.

    Returns
    -------
    Path of the page.

    Raises
    ------
    FileNotFoundError
        The folder holds no ``plan.json`` or no ``results.csv``.
    ValueError
        A file that can't be read, or a table that lacks a column.
    """
    folder = Path(folder)
    path = folder / "report.html"
    results = read_results(folder)
    with create_whole(folder / "figures", overwrite=True, remedy="") as figures:
        figures.mkdir()
        contents = _compose(results, Album(figures))
        links = "".join(f"<li><a href='#section{i}'>{title}</a></li>" for i, title in enumerate(contents))
        write_page(
            path,
            kind="benchmark",
            title=text(results.spec["name"]),
            head=f"{runs.head(results)}\n<nav aria-label='Contents'><ul>{links}</ul></nav>",
            sections=[section(f"section{i}", title, content) for i, (title, content) in enumerate(contents.items())],
            footer=" Every figure lies in the folder <code>figures</code> beside it, as SVG and as PNG.",
        )
    logger.info("Report written to %s", path)
    return path


_WITH_GIVEN_LABELS: Mapping[str, Callable[[Results, Album], str]] = {
    "Integration": integrations.integration,
    "Corrected expression": integrations.expression,
    "Differences to the baseline": integrations.difference,
    "How well cells mix": integrations.lisi,
    "Length of training": trainings.tuning,
    "A batch left out of training": trainings.batch_out,
    "Classification of a batch left out": trainings.classification,
}


def _note_scoring(content: str) -> str:
    return protocols.GIVEN + content if content else ""


def _compose(results: Results, album: Album) -> dict[str, str]:
    """The sections that have something to show, by title."""
    sections = {
        "Scored on labels that no method had seen": protocols.show_unseen(results, album),
        "Controls and faults: other labels given than scored with": protocols.show_altered(results, album),
        **{title: _note_scoring(show(results, album)) for title, show in _WITH_GIVEN_LABELS.items()},
        "Cost": runs.cost(results),
        "Failures": runs.failures(results),
        "Metrics explained": runs.explanations(results),
        "Settings and versions": runs.settings(results),
    }
    return {title: content for title, content in sections.items() if content}

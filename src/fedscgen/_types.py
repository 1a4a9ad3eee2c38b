"""What sites and coordinator exchange: messages, and values that are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedscgen._entries import Table, choice, matrix, maybe, names, several, whole
from fedscgen._message import Buffer, Message, WireFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = [
    "LONGEST_LABEL",
    "MOST_DIMENSIONS",
    "MOST_LABELS",
    "Buffer",
    "ClientUpdate",
    "LabelStats",
    "LatentShifts",
    "Message",
    "NamedArrays",
    "ReferenceKind",
    "References",
    "WireFormatError",
    "check_choice",
]

NamedArrays = dict[str, np.ndarray]
MAX_MISSING_GENES = 0.05
"""Share of a model's genes that new cells may lack, unless another is named."""

ReferenceKind = Literal["landmarks", "dominant", "mean"]

MOST_LABELS, LONGEST_LABEL, MOST_DIMENSIONS = 10_000, 1000, 4096
"""Of references and landmarks, in a message or a file: cell types, characters in the name of one, latent dimensions."""

REFUSAL = "refusal"
"""Kind of a site's answer to what it doesn't do; its ``meta`` holds a ``reason``."""


def make_refusal(reason: str) -> Message:
    """A site's answer when it does not do what it was asked.

    Parameters
    ----------
    reason
        Why, in words that the coordinator may read.
    """
    return Message(REFUSAL, {"reason": reason})


@dataclass(frozen=True)
class ClientUpdate:
    """What local training yields, and all that a site contributes to a round.

    Parameters
    ----------
    weights
        Floating-point parameters and BatchNorm statistics by name.
    n_cells
        Cells trained on: the site's weight in ``weighted_fedavg``.
    """

    weights: NamedArrays
    n_cells: int


@dataclass(frozen=True)
class LabelStats:
    """Where each cell type of each batch lies in latent space. Stays at the site.

    Parameters
    ----------
    batches, labels
        Names of the axes, ``B`` and ``L`` long.
    counts
        Cells, shape ``(B, L)``.
    means
        Mean latent vectors, shape ``(B, L, n_latent)``; zero where the count is zero.
    variances
        Mean squared distance of the cells from their mean, shape ``(B, L)``: the variances of all dimensions together.
        ``None`` where nobody asked for it; only shrunk shifts need it.
    """

    batches: tuple[str, ...]
    labels: tuple[str, ...]
    counts: np.ndarray
    means: np.ndarray
    variances: np.ndarray | None = None


@dataclass(frozen=True)
class References:
    """Where each shared cell type belongs in latent space.

    Parameters
    ----------
    labels
        Names of the shared cell types, ``L`` long.
    means
        Reference vectors, shape ``(L, n_latent)``.
    n_cells
        Cells behind each vector, shape ``(L,)``, or ``None`` where counts were not opened.
    kind
        ``"dominant"`` (mean of the batch with most cells) or ``"mean"`` (cell-weighted over the batches).
    """

    labels: tuple[str, ...]
    means: np.ndarray
    n_cells: np.ndarray | None = None
    kind: str = "dominant"

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "means": np.asarray(self.means, dtype=np.float64).tolist(),
            "n_cells": None if self.n_cells is None else np.asarray(self.n_cells).astype(int).tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            It is something else, or its parts don't fit together.
        """
        _REFERENCES.check(content, "references")
        n_cells = content["n_cells"]
        for part in ("means", "n_cells"):
            if content[part] is not None and len(content[part]) != len(content["labels"]):
                raise ValueError(
                    f"references: {part!r} has {len(content[part])} rows for {len(content['labels'])} cell types"
                )
        return cls(
            labels=tuple(content["labels"]),
            means=np.array(content["means"], dtype=np.float64, ndmin=2) if content["labels"] else np.empty((0, 0)),
            n_cells=None if n_cells is None else np.asarray(n_cells, dtype=np.int64),
            kind=content["kind"],
        )


_REFERENCES = Table(
    {
        "kind": choice("dominant", "mean"),
        "labels": names(MOST_LABELS, LONGEST_LABEL),
        "means": matrix(MOST_LABELS, MOST_DIMENSIONS),
        "n_cells": maybe(several(whole(0, 2**53), MOST_LABELS)),
    }
)


@dataclass(frozen=True)
class LatentShifts:
    """What is added to the latent vector of every cell, by batch and cell type.

    Parameters
    ----------
    batches, labels
        Names of the axes, ``B`` and ``L`` long.
    shifts
        Shape ``(B, L, n_latent)``; zero where a type has no reference or the batch no cell of it.
    known
        Whether a type has a reference and the batch cells of it, shape ``(B, L)``, bool: tells a shift of zero from
        none. ``None``: all are shifts.
    """

    batches: tuple[str, ...]
    labels: tuple[str, ...]
    shifts: np.ndarray
    known: np.ndarray | None = None


def check_choice(value: str, choices: object, what: str) -> None:
    """Raise a ``ValueError`` that lists the choices if ``value`` is none of them."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(map(repr, allowed))}")

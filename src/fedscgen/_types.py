"""What sites and coordinator exchange: frozen, named arrays and JSON, never pickle."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

NamedArrays = dict[str, np.ndarray]

Buffer = bytes | bytearray | memoryview

_MAGIC = b"FSG1"
_HEADER_LENGTH = struct.Struct("<I")
_DTYPES = ("<f4", "<f8", "<i8", "<u8", "|u1", "|b1")


class WireFormatError(ValueError):
    """Bytes that are not a message, or not a whole one."""


@dataclass(frozen=True)
class Message:
    """One thing that crosses the wire.

    Parameters
    ----------
    kind
        What it is; the privacy ledger lists it under this name.
    meta
        JSON-serialisable values: names, settings.
    arrays
        Numeric arrays by name.
    """

    kind: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise, as :meth:`to_buffer` does."""
        return bytes(self.to_buffer())

    def to_buffer(self) -> memoryview:
        """Serialise: magic, header length, JSON header, then each array's bytes in C order.

        In numpy's memory, which for large arrays costs a fraction of what a ``bytes`` object does.

        Raises
        ------
        WireFormatError
            An array's dtype may not cross the wire (only float32/64, int64, uint64, uint8, bool may).
        """
        header: dict[str, Any] = {"kind": self.kind, "meta": dict(self.meta), "arrays": []}
        parts = []
        for name, array in self.arrays.items():
            array = np.asarray(array)
            dtype = array.dtype.newbyteorder("<").str
            if dtype not in _DTYPES:
                raise WireFormatError(f"array {name!r} has dtype {array.dtype}, which may not cross the wire")
            header["arrays"].append([name, dtype, list(array.shape)])
            parts.append(np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8))
        encoded = json.dumps(header, allow_nan=False).encode()
        start = np.frombuffer(_MAGIC + _HEADER_LENGTH.pack(len(encoded)) + encoded, dtype=np.uint8)
        return np.concatenate([start, *parts]).data

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read what :meth:`to_bytes` or :meth:`to_buffer` wrote; arrays are views of ``data``.

        Raises
        ------
        WireFormatError
            ``data`` is truncated, too long, or not a message.
        """
        try:
            header, offset = _read_header(data)
            arrays = {}
            for name, dtype, shape in header["arrays"]:
                arrays[name], offset = _read_array(data, offset, dtype, shape)
            if offset != len(data):
                raise WireFormatError(f"{len(data) - offset} bytes follow the last array")
            return cls(str(header["kind"]), dict(header["meta"]), arrays)
        except WireFormatError:
            raise
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise WireFormatError(f"not a fedscgen message: {error}") from error


def _read_header(data: Buffer) -> tuple[dict[str, Any], int]:
    start = len(_MAGIC) + _HEADER_LENGTH.size
    if data[: len(_MAGIC)] != _MAGIC:
        raise WireFormatError("not a fedscgen message: it does not begin with the format's mark")
    (length,) = _HEADER_LENGTH.unpack(data[len(_MAGIC) : start])
    if start + length > len(data):
        raise WireFormatError(f"truncated: the header needs {length} bytes, {len(data) - start} are there")
    return json.loads(bytes(data[start : start + length])), start + length


def _read_array(data: Buffer, offset: int, dtype: str, shape: list[int]) -> tuple[np.ndarray, int]:
    if dtype not in _DTYPES or any(not isinstance(n, int) or n < 0 for n in shape):
        raise WireFormatError(f"array of dtype {dtype!r} and shape {shape!r} may not cross the wire")
    size = int(np.prod(shape, dtype=object))
    end = offset + size * np.dtype(dtype).itemsize
    if end > len(data):
        raise WireFormatError(f"truncated: an array ends at byte {end}, the message at {len(data)}")
    return np.frombuffer(data, dtype, count=size, offset=offset).reshape(shape), end


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
        """Read what :meth:`to_json` wrote."""
        n_cells = content["n_cells"]
        return cls(
            labels=tuple(content["labels"]),
            means=np.array(content["means"], dtype=np.float64, ndmin=2) if content["labels"] else np.empty((0, 0)),
            n_cells=None if n_cells is None else np.asarray(n_cells, dtype=np.int64),
            kind=content["kind"],
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

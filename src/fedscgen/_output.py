"""What a result takes over from the cells that were given, and whether it can be written at all."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from fedscgen._data import LATENT_KEY, REENCODED_KEY, RESULT_KEYS, TYPES_KEY
from fedscgen._files import check_room
from fedscgen._result_file import create_h5, describe_failure, write_adata

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData

logger = logging.getLogger(__name__)

_RESERVED = "_index"  # what AnnData's files call the names of rows
_RENAMED = "index_"
_EMBEDDING = re.compile(r"X_(pca|umap|tsne|diffmap|phate|trimap|draw_graph_\w+)")  # as scanpy's plots look for them
_ROOM_BESIDES = 200_000  # names of fields, and what uns holds
_GRAPHS = ("connectivities_key", "distances_key")


def repair(adata: AnnData) -> None:
    """Change, in place, what some programs write into files and anndata reads but doesn't write.

    Columns that are called ``"_index"``, as SeuratDisk leaves them, get another name; names and columns of nullable
    strings become plain ones.

    Parameters
    ----------
    adata
        Cells that nobody else holds.
    """
    done = []
    for name, frame in (("obs", adata.obs), ("var", adata.var)):
        if _needs_repair(frame):
            setattr(adata, name, _repair_frame(frame))
            done.append(name)
    if adata.raw is not None and _needs_repair(adata.raw.var):
        raw = adata.raw.to_adata()
        raw.var = _repair_frame(raw.var)
        adata.raw = raw
        done.append("raw.var")
    if done:
        logger.warning(
            "%s: renamed columns called %r to %r, and made nullable strings plain ones, as files can't hold them",
            ", ".join(done), _RESERVED, _RENAMED,
        )  # fmt: skip


def _needs_repair(frame: pd.DataFrame) -> bool:
    """Whether the frame has a column of the reserved name, or nullable strings."""
    return _RESERVED in frame or any(_is_nullable(values) for values in (frame.index, *(frame[name] for name in frame)))


def write_cells(adata: AnnData, path: Path, **options: Any) -> None:
    """Write a file ``.h5ad``, once there is room for it.

    Parameters
    ----------
    adata
        The cells.
    path
        The file, which doesn't exist.
    **options
        As ``h5py``'s ``create_dataset`` takes them.

    Raises
    ------
    OSError
        There is no room, or something else has ended the writing.
    """
    check_room(path, estimate_bytes(adata))
    try:
        with create_h5(path) as (file, _):
            write_adata(file, adata, **options)
    except OSError as error:
        raise describe_failure(path, error) from None


def estimate_bytes(adata: AnnData) -> int:
    """Bytes that the cells take in a file, at most, if it isn't compressed."""
    parts = [adata.X, *(part[key] for part in (adata.layers, adata.obsm, adata.varm, adata.obsp, adata.varp)
                        for key in part)]  # fmt: skip
    if adata.raw is not None:
        parts += [adata.raw.X, adata.raw.var]
    return _ROOM_BESIDES + sum(map(count_bytes, [*parts, adata.obs, adata.var]))


def count_bytes(part: Any) -> int:
    """Bytes of a table or matrix, in memory or in a file; 0 where nobody knows."""
    if isinstance(part, pd.DataFrame):
        return int(part.memory_usage(deep=True).sum())
    if sparse.issparse(part):
        return sum(getattr(part, name).nbytes for name in ("data", "indices", "indptr") if hasattr(part, name))
    group = getattr(part, "group", None)  # of a sparse matrix in a file
    if group is not None:
        return sum(group[name].nbytes for name in ("data", "indices", "indptr"))
    n_bytes = getattr(part, "nbytes", 0)
    return 0 if np.isnan(n_bytes) else int(n_bytes)


def try_writing(adata: AnnData, folder: Path) -> None:
    """Write two cells, with everything but the others, into a file that is removed again.

    There must be room for all cells, too, and for their expression once more.

    Parameters
    ----------
    adata
        What the result will hold besides.
    folder
        Where the result will be.

    Raises
    ------
    ValueError
        It can't be written; the message says what.
    OSError
        There is no room for it.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as trial:
        check_room(Path(trial) / "the result", estimate_bytes(adata) + count_bytes(adata.X))
        try:
            two = adata[:2]
            with create_h5(Path(trial) / "trial.h5ad") as (file, _):
                write_adata(file, two.to_memory() if adata.isbacked else two.copy())
        except OSError as error:
            raise describe_failure(Path("the result"), error) from None
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"the result could not be written, as anndata refuses these cells: {reason}") from error


def _repair_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without a column of the reserved name and without nullable strings."""
    repaired = frame.rename(columns={_RESERVED: _RENAMED})
    repaired.index = _plain(repaired.index)
    for name in repaired:
        if _is_nullable(repaired[name]):
            repaired[name] = _plain(repaired[name])
    return repaired


def _is_nullable(values: pd.Index | pd.Series) -> bool:
    return isinstance(values.dtype, pd.StringDtype) and values.dtype.na_value is pd.NA


def _plain(values: pd.Index | pd.Series) -> pd.Index | pd.Series:
    return values.astype(object).where(values.notna(), None) if values.hasnans else values.astype(object)


def drop_outdated(adata: AnnData, used: Collection[str | None] = ()) -> None:
    """Take out of a copy, in place, what a correction makes untrue.

    Embeddings of scanpy's get another name, its graphs of neighbours go (those of places in tissue stay), and so do
    scvi-tools' notes and results of an earlier correction.

    Parameters
    ----------
    adata
        Cells that are about to become a result.
    used
        Columns of ``obs`` that are read all the same.
    """
    renamed = [key for key in adata.obsm if _EMBEDDING.fullmatch(key)]
    for key in renamed:
        adata.obsm[f"{key}_before"] = adata.obsm.pop(key)
    graphs = _drop_neighbors(adata)
    if renamed or graphs:
        logger.warning(
            "of the cells before correction: %s; find neighbours and embeddings anew, with use_rep=%r",
            ", ".join([*(f"obsm[{key!r}] is now {key + '_before'!r}" for key in renamed),
                       *(f"uns[{key!r}] and its graphs are left out" for key in graphs)]), LATENT_KEY,
        )  # fmt: skip
    for place in (adata.obsm, adata.uns):
        for key in [key for key in place if key in (LATENT_KEY, REENCODED_KEY, TYPES_KEY) or key.startswith("_scvi")]:
            del place[key]
    columns = [key for key in adata.obs if key in RESULT_KEYS or str(key).startswith("_scvi")]
    adata.obs = adata.obs.drop(columns=[key for key in columns if key not in used])


def _drop_neighbors(adata: AnnData) -> list[str]:
    """Remove graphs of neighbours, and give the names of their entries."""
    found = {
        name: [entry[graph] for graph in _GRAPHS if graph in entry]
        for name, entry in adata.uns.items()
        if isinstance(entry, Mapping) and _GRAPHS[0] in entry and not name.startswith("spatial")
    }
    for name, graphs in found.items():
        del adata.uns[name]
        for graph in graphs:
            adata.obsp.pop(graph, None)
    return list(found)

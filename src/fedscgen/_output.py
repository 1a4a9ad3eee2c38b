"""Whether a result can be written is tried before anything is computed, and what can be repaired is."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

_RESERVED = "_index"  # what AnnData's files call the names of rows
_RENAMED = "index_"


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


def try_writing(adata: AnnData, folder: Path) -> None:
    """Write two cells, with everything but the others, into a file that is removed again.

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
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as trial:
        try:
            adata[:2].copy().write_h5ad(Path(trial) / "trial.h5ad")
        except OSError:
            raise
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

"""What can't be had again without training: where it is written, and where it is kept if the rest can't be."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedscgen.federation import SimulationResult

_TRAINED = ("model", "history.csv", "ledger.csv")


def keep_training(folder: Path, result: SimulationResult) -> Path:
    """Write what was trained to a place of its own; where there is no room, move what is written, beside the result."""
    kept = Path(tempfile.mkdtemp(prefix="fedscgen-"))
    try:
        write_training(kept, result)
    except OSError:
        shutil.rmtree(kept, ignore_errors=True)
        if not all((folder / name).exists() for name in _TRAINED):
            raise
        kept = Path(tempfile.mkdtemp(prefix=f"{folder.name}-trained-", dir=folder.parent.parent))
        for name in _TRAINED:
            (folder / name).rename(kept / name)
    return kept


def write_training(folder: Path, result: SimulationResult) -> None:
    """Write what can't be had again without training."""
    model, history, ledger = (folder / name for name in _TRAINED)
    result.model.save(model)
    result.history.to_csv(history, index=False)
    result.ledger.to_csv(ledger, index=False)

"""What a federation agrees on before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from fedscgen._types import Preset, check_choice
from fedscgen.aggregation import BatchNormPolicy, OptimizerKind, Strategy
from fedscgen.correction import ReferenceKind
from fedscgen.model import FedSCGEN

GenesKind = Literal["intersection", "union"]


@dataclass(frozen=True)
class FederationSettings:
    """The server's settings. The defaults are those that integrate best; see the design notes on quality.

    Parameters
    ----------
    n_rounds
        Rounds of training.
    n_epochs
        Epochs that every site trains in a round.
    lr
        Learning rate of Adam.
    lr_decay
        What the learning rate is multiplied by from round to round.
    batch_size
        Cells in a mini-batch.
    strategy
        ``"weighted_fedavg"`` weighs a site by its training cells, ``"fedavg"`` all alike.
    batchnorm
        ``"pooled"``: every site trains on with all sites' BatchNorm statistics; ``"local"``: with its own. The
        federation's model, which sites that join later get, has the pooled ones in either case.
    server_optimizer
        What becomes of the sites' average; see :class:`fedscgen.aggregation.ServerOptimizer`.
    proximal_weight
        Holds the sites' weights near the federation's; see :meth:`fedscgen.model.FedSCGEN.train_local`.
    restore_best_epoch
        Whether a site returns the best of a round's epochs, instead of the last.
    reference
        ``"dominant"``: the mean of the site with most cells of a type; ``"mean"``: the cell-weighted mean over the
        sites. ``None`` takes ``"dominant"`` wherever the aggregator finds it without showing counts, else ``"mean"``.
    early_stopping_patience
        Stop when the federation's validation loss has not improved for so many rounds, and go back to the best
        weights. ``None`` runs all rounds and keeps the last weights.
    min_sites
        Fewest sites with which the federation goes on when others don't answer.
    genes
        ``"intersection"``: those that all sites hold. ``"union"``: those that any site holds; where a site lacks one,
        its cells count as not expressing it.
    seed
        Where every site's random numbers come from, together with its position among the sites.
    model
        Keyword arguments of :class:`~fedscgen.model.FedSCGEN`.

    Raises
    ------
    ValueError
        A value is out of range or no choice; the message names it.
    """

    n_rounds: int = 8
    n_epochs: int = 4
    lr: float = 3e-4
    lr_decay: float = 1.0
    batch_size: int = 50
    strategy: Strategy = "weighted_fedavg"
    batchnorm: BatchNormPolicy = "pooled"
    server_optimizer: OptimizerKind = "average"
    proximal_weight: float = 0.0
    restore_best_epoch: bool = True
    reference: ReferenceKind | None = None
    early_stopping_patience: int | None = None
    min_sites: int = 1
    genes: GenesKind = "intersection"
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_rounds", "n_epochs", "lr", "lr_decay", "batch_size", "min_sites"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if not self.proximal_weight >= 0:
            raise ValueError(f"proximal_weight={self.proximal_weight}: must not be below 0")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience={self.early_stopping_patience}: at least 1 round, or None")
        check_choice(self.strategy, Strategy, "strategy")
        check_choice(self.batchnorm, BatchNormPolicy, "BatchNorm policy")
        check_choice(self.server_optimizer, OptimizerKind, "server optimizer")
        check_choice(self.genes, GenesKind, "choice of genes")
        if self.reference is not None:
            check_choice(self.reference, ReferenceKind, "kind of reference")

    @classmethod
    def from_preset(cls, preset: Preset, **given: Any) -> Self:
        """Settings by name, but for what is given and not ``None``.

        Parameters
        ----------
        preset
            ``"default"``, or ``"paper"``: the network and the schedule of the publication (Bakhtiari et al. 2025).
        **given
            As the class takes them.
        """
        check_choice(preset, Preset, "preset")
        chosen = {name: value for name, value in given.items() if value is not None}
        if preset == "paper":
            network = {**FedSCGEN.PRESETS["scarches"], **chosen.get("model", {})}
            chosen = {"n_rounds": 8, "n_epochs": 2, "lr": 1e-3, "batch_size": 50, **chosen, "model": network}
        return cls(**chosen)

"""Settings as values: what a federation agrees on, and what a site holds where."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, Self

import scvi

from fedscgen._batches import BATCH_KEY
from fedscgen._data import DataKeys
from fedscgen._options import Preset, check_fields, check_share, check_whole
from fedscgen._types import check_choice
from fedscgen.aggregation import BatchNormPolicy, OptimizerKind, Strategy
from fedscgen.correction import FEWEST_HOLDERS, LABEL_NOISE, ReferenceKind
from fedscgen.federation._models import find_model, find_model_settings
from fedscgen.model import FedSCGEN

_SEEDS = 2**32
_GENES_TO_TRY = 1000
_LARGEST_SUM = 1e9
MOST_GENES = 200_000
"""That a federation works on."""

_BOUNDS: Mapping[str, tuple[float, float]] = {
    "n_rounds": (0, 10_000), "n_epochs": (1, 1000), "lr": (1e-7, 1.0), "lr_decay": (1e-3, 10.0),
    "batch_size": (8, 1_000_000), "proximal_weight": (0.0, 1e6),
}  # fmt: skip
_MOST_UNITS = 8192  # in a layer, and of whatever else a model counts
_MOST_WEIGHTS = 2**28
_PUBLISHED: Mapping[str, Any] = {
    "n_rounds": 8, "n_epochs": 2, "lr": 1e-3, "batch_size": 50, "fixed_batches": True,
    "strategy": "fedavg", "batchnorm": "averaged", "restore_best_epoch": False, "reference": "dominant",
    "label_noise": 0.0,
}  # fmt: skip

GenesKind = Literal["intersection", "union"]


@dataclass(frozen=True)
class FederationSettings:
    """What all sites do alike. The defaults are those that integrate best; see the design notes on quality.

    Parameters
    ----------
    n_rounds
        Rounds of training. 0: the model stays what it begins with, such as the principal components of all cells.
    n_epochs
        Epochs that every site trains in a round.
    lr
        Learning rate of Adam.
    lr_decay
        What the learning rate is multiplied by from round to round.
    batch_size
        Cells in a mini-batch.
    fixed_batches
        Whether a site's mini-batches are the same ones in every epoch, in one order and without the incomplete last
        one, as published. False: they are drawn anew, and all cells take part.
    strategy
        ``"weighted_fedavg"`` weighs a site by its training cells, ``"fedavg"`` all alike.
    batchnorm
        ``"pooled"``: every site trains on with all sites' BatchNorm statistics; ``"local"``: with its own. The
        federation's model, which sites that join later get, has the pooled ones in either case. ``"averaged"``: with
        its own until training ends, and then all have the mean of the sites' means and of their variances, as
        published.
    server_optimizer
        What becomes of the sites' average: ``"average"``, ``"momentum"`` or ``"adam"``; see
        :class:`fedscgen.aggregation.ServerOptimizer`.
    proximal_weight
        Holds the sites' weights near the federation's (FedProx); see :meth:`fedscgen.model.FedSCGEN.train_local`.
    restore_best_epoch
        Whether a site returns the best of a round's epochs, instead of the last.
    reference
        Where cells belong. ``"landmarks"``: at places that the sites have in common, found by sums over them, with or
        without labels; see :func:`fedscgen.correction.find_landmarks`. ``"mean"``: each cell type at the cell-weighted
        mean over the sites. ``"dominant"``, as published: at the mean of the site with most cells of it, which turns
        differences between sites into differences between cell types, and which masked sums find only by showing the
        coordinator every site's counts.
    label_noise
        Share of given labels that may be wrong. Above 0, a cell's own label is weighed against the classifier, and one
        that it contradicts counts less. For landmarks; without any label it changes nothing.
    early_stopping_patience
        Stop when the federation's validation loss has not improved for so many rounds, and go back to the best
        weights. None: all rounds are run, and the last weights are kept.
    min_sites
        Fewest sites with which the federation goes on when others don't answer. None: all of them; whoever is missing
        ends the run, which can go on when all are there again.
    genes
        ``"intersection"``: those that all sites hold. ``"union"``: those that any site holds; where a site lacks one,
        its cells count as not expressing it.
    n_top_genes
        How many of these the model is trained on: those that vary most, which the sites find by one sum over them. They
        are the genes that scanpy's ``highly_variable_genes(flavor="seurat", batch_key=site)`` finds on all cells in one
        place. The others stay out of the network, and out of the corrected cells unless a site keeps genes. None: all
        of them.
    gene_list
        Names of the only genes that are used, of which each site tells the ones that it holds. None or empty: all.
    target_sum
        Molecules that each cell was normalised to before its logarithm was taken. A site whose cells were normalised to
        another number refuses; one that has left out genes since may sum to less. None: nobody looks.
    unaligned_sites
        Sites that may take part though each of their cells has a label and no other site shares any of these, so that
        labels don't tell where their cells belong. Of others that is an error.
    seed
        Where every site's random numbers come from, together with its position among the sites. None:
        ``scvi.settings.seed`` or, if there is none either, a random one.
    architecture
        Name of the model that is trained; see :func:`fedscgen.federation.register_model`.
    model
        The model's own settings; for ``"fedscgen"`` the keyword arguments of :class:`~fedscgen.model.FedSCGEN`.

    Raises
    ------
    ValueError
        A value is of the wrong type, out of range or no choice; the message names it.
    """

    n_rounds: int = 8
    n_epochs: int = 4
    lr: float = 3e-4
    lr_decay: float = 1.0
    batch_size: int = 50
    fixed_batches: bool = False
    strategy: Strategy = "weighted_fedavg"
    batchnorm: BatchNormPolicy = "pooled"
    server_optimizer: OptimizerKind = "average"
    proximal_weight: float = 0.0
    restore_best_epoch: bool = True
    reference: ReferenceKind = "landmarks"
    label_noise: float = LABEL_NOISE
    early_stopping_patience: int | None = None
    min_sites: int | None = None
    genes: GenesKind = "intersection"
    n_top_genes: int | None = None
    gene_list: tuple[str, ...] = ()
    target_sum: float | None = None
    unaligned_sites: tuple[str, ...] = ()
    seed: int | None = None
    architecture: str = "fedscgen"
    model: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}: from {low:g} to {high:g}, as sites agree to no other")
        if self.min_sites is not None and self.min_sites < 1:
            raise ValueError(f"min_sites={self.min_sites}: must be above 0")
        check_share("label_noise", self.label_noise)
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"early_stopping_patience={self.early_stopping_patience}: at least 1 round, or None")
        if self.seed is not None:
            check_whole("seed", self.seed, 0, _SEEDS - 1)
        self._check_genes()
        self._check_model()

    def _check_genes(self) -> None:
        if self.n_top_genes is not None:
            check_whole("n_top_genes", self.n_top_genes, 2, MOST_GENES)
        if len(self.gene_list) > MOST_GENES:
            raise ValueError(f"gene_list of {len(self.gene_list)} names: at most {MOST_GENES}")
        repeated = [name for name, times in Counter(self.gene_list).items() if times > 1]
        if repeated:
            raise ValueError(f"gene_list names {repeated[0]!r} twice: name each gene once")
        if self.target_sum is not None and not 1 <= self.target_sum <= _LARGEST_SUM:
            raise ValueError(f"target_sum={self.target_sum:g}: from 1 to {_LARGEST_SUM:g}, or None")

    def _check_model(self) -> None:
        """Refuse settings that the model doesn't have or can't be made with."""
        known = find_model_settings(self.architecture)
        unknown = [name for name in self.model if name not in known]
        if unknown:
            raise ValueError(
                f"model: unknown setting {unknown[0]!r} of {self.architecture!r}: it has {', '.join(known) or 'none'}"
            )
        huge = [f"{name}={value}" for name, value in self.model.items() if _is_number(value) and value > _MOST_UNITS]
        if huge:
            raise ValueError(f"model: {huge[0]}: at most {_MOST_UNITS}, as sites agree to no larger one")
        self.check_size(_GENES_TO_TRY)
        if self.model:
            _try_model(self.architecture, json.dumps(self.model))

    def count_genes(self, n_common: int) -> int:
        """How many of the genes in common the model is of."""
        return n_common if self.n_top_genes is None else min(self.n_top_genes, n_common)

    def check_size(self, n_genes: int) -> None:
        """Refuse a model of so many genes that would take the machine, before anything is made of it.

        Raises
        ------
        ValueError
            It would have more weights than sites agree to, by the largest of the counts that are its settings.
        """
        counts = {n: v for n, v in {**find_model_settings(self.architecture), **self.model}.items() if _is_number(v)}
        depth = counts.pop("n_layers", 1)
        widest = max(counts.values(), default=1)
        n_weights = depth * widest**2 + 2 * n_genes * widest
        if n_weights > _MOST_WEIGHTS:
            raise ValueError(
                f"model: about {n_weights:.2g} weights with {n_genes} genes, {depth} layers and up to {widest} units: "
                f"at most {_MOST_WEIGHTS:.2g}, as sites agree to no more"
            )

    def spell_out(self) -> Self:
        """The same settings, with those of the model that have their default written out."""
        return replace(self, model={**find_model_settings(self.architecture), **self.model})

    @classmethod
    def from_preset(cls, preset: Preset, **changes: Any) -> Self:
        """Settings by name, with some of them changed.

        Parameters
        ----------
        preset
            ``"default"``; ``"components"``: principal components of all sites' cells, without training; or ``"paper"``:
            the published network and federation (Bakhtiari et al. 2025). Early stopping and the falling learning rate
            are left out of it: there they wait for a site's 20th epoch, of 16 in all.
        **changes
            As the class takes them. Of ``model``, entries that aren't given are the preset's.
        """
        check_choice(preset, Preset, "settings")
        if preset == "components":
            changes = {"n_rounds": 0, **changes}
        if preset == "paper":
            network = {**FedSCGEN.PRESETS["scarches"], **changes.get("model", {})}
            changes = {**_PUBLISHED, **changes, "model": network}
        return cls(**changes)

    def of_correction(self) -> Self:
        """Those that count where a trained model corrects; others, such as whose BatchNorm statistics count, don't."""
        kept = ("genes", "target_sum", "min_sites", "seed", "architecture", "model")
        return type(self)(**{name: getattr(self, name) for name in kept})

    def least_of(self, n_sites: int) -> int:
        """Fewest of so many sites with which the federation goes on."""
        return n_sites if self.min_sites is None else self.min_sites

    def find_seed(self) -> int:
        """The seed or, if there is none, ``scvi.settings.seed`` or a random number."""
        if self.seed is not None:
            return self.seed
        return secrets.randbelow(2**31) if scvi.settings.seed is None else int(scvi.settings.seed)


@dataclass(frozen=True)
class SiteOptions:
    """What is where in a site's AnnData, and the size from which the site reports a cell type.

    Parameters
    ----------
    batch_key
        Column of ``obs`` with batches within the site; or several, such as donors and lanes, with commas between them
        in a file: each combination is a batch, in ``obs["fedscgen_batch"]`` of the result. None: all its cells are one.
    labels_key
        Column of ``obs`` with the cell types. None: no cell has a label.
    layer
        Layer with the log-normalised expression. None: ``X``.
    normalize
        Whether raw counts, or expression without a logarithm, are normalised to 10,000 a cell and logged before they
        are used; what is logged already stays as it is. False: they are refused.
    unlabeled_category
        What the column of cell types says of cells without a label; the site reports no such type. None: every cell
        has a label.
    min_cells
        Cell types with fewer cells in a batch are not reported, not even by name, and don't serve as reference: the
        mean of one cell is that cell. For landmarks, cells without a label count too, in the proportions of those with.
        Nothing is told of a landmark near which the site has fewer cells, those of all its batches together.
    min_holders
        Fewest sites that must have cells of a type, or near a landmark, before a mean of theirs is opened; of all
        sites' wishes the largest counts, and one above the number of sites is refused. With 1, labels help that one
        site alone has, and the coordinator sees the means of that site's cell types.
    max_update_norm
        How much a round of training may change the site's parameters, as a multiple of the L2 norm that they had. What
        training has changed beyond that is scaled down; the package's model stays below 0.2. None: as much as it does.

    Raises
    ------
    ValueError
        A value is of the wrong type or out of range; the message names it.
    """

    batch_key: str | tuple[str, ...] | None = None
    labels_key: str | None = "cell_type"
    layer: str | None = None
    unlabeled_category: str | None = None
    normalize: bool = False
    min_cells: int = 5
    min_holders: int = FEWEST_HOLDERS
    max_update_norm: float | None = 5.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_update_norm is not None and not self.max_update_norm > 0:
            raise ValueError(f"max_update_norm={self.max_update_norm}: must be above 0, or None")
        for name in ("min_cells", "min_holders"):
            check_whole(name, getattr(self, name), 1)
        if self.batch_key == ():
            raise ValueError("batch_key=(): name a column or several, or None if all cells are one batch")
        columns = self.batch_key if isinstance(self.batch_key, tuple) else (self.batch_key,)
        if self.labels_key is not None and self.labels_key in columns:
            raise ValueError(f"batch_key and labels_key both name obs[{self.labels_key!r}]: name two columns, or None")

    @property
    def keys(self) -> DataKeys:
        """The names as the model takes them; several columns of batches are one once they are joined."""
        batch_key = BATCH_KEY if isinstance(self.batch_key, tuple) else self.batch_key
        return DataKeys(batch_key, self.labels_key, self.layer, unlabeled_category=self.unlabeled_category)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def _try_model(architecture: str, model: str) -> None:
    """Make a model's first weights, with settings as JSON."""
    try:
        find_model(architecture).initial_weights(_GENES_TO_TRY, 0, **json.loads(model))
    except Exception as error:
        raise ValueError(f"model={model}: no {architecture!r} can be made with this: {error}") from error


def settings_as_json(settings: FederationSettings) -> dict[str, Any]:
    """The settings as they are once they have been written and read."""
    read: dict[str, Any] = json.loads(json.dumps({**vars(settings), "model": dict(settings.model)}))
    return read

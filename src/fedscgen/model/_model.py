"""The face of the package: a scvi-tools model that trains at one site and corrects that site's cells."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField, MuDataCategoricalObsField, MuDataLayerField
from scvi.model.base import BaseModelClass

from fedscgen._batches import BATCH_KEY, BatchKey, join_columns
from fedscgen._data import DataKeys, check_data
from fedscgen.model._correction_mixin import CorrectionMixin
from fedscgen.model._fields import LabelsField, MuDataLabelsField
from fedscgen.model._inherited_mixin import InheritedMixin
from fedscgen.model._likelihood_mixin import LikelihoodMixin
from fedscgen.model._module import FedVAE
from fedscgen.model._save_load_mixin import SaveLoadMixin
from fedscgen.model._training_mixin import TrainingMixin

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen.model._layers import Normalization


class FedSCGEN(TrainingMixin, CorrectionMixin, LikelihoodMixin, SaveLoadMixin, InheritedMixin, BaseModelClass):
    """Federated scGen: batch correction of single-cell RNA-seq in the latent space of a variational auto-encoder.

    Trained on its own (:meth:`train`, :meth:`correct`) it corrects all cells in one place; with
    ``get_references(kind="dominant")`` as scGen's batch removal does (Lotfollahi et al. 2019). In a federation, as in
    FedscGen (Bakhtiari et al. 2025), it is one site's half: :meth:`train_local` yields what the site contributes,
    :meth:`load_weights` takes what came of all sites, and :meth:`correct` takes away what the site's batches add to
    what the sites have in common.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`, or MuData with :meth:`setup_mudata`.
    n_hidden
        Units of every hidden layer.
    n_layers
        Hidden layers of encoder and decoder each.
    n_latent
        Dimensions of the latent space.
    dropout_rate
        Share of hidden units dropped in training.
    kl_weight
        Weight of the sum of Kullback-Leibler divergences against the mean squared error.
    normalization
        What follows the linear map of a hidden layer: ``"batch"``, or ``"layer"``, which knows no other cell.
    linear_path
        Begin training at the principal components of all cells, and learn what isn't linear beside them. ``False``
        is the published network, which begins at random, and whose first layer has no bias.

    Examples
    --------
    >>> FedSCGEN.setup_anndata(adata)
    >>> model = FedSCGEN(adata)
    >>> model.train()
    >>> corrected = model.correct()
    """

    _module_cls = FedVAE

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "scarches": {
            "n_hidden": 800, "n_layers": 2, "n_latent": 10, "dropout_rate": 0.05, "kl_weight": 1e-6,
            "normalization": "batch", "linear_path": False,
        },
        "scgen": {"n_hidden": 800, "n_layers": 2, "n_latent": 100, "dropout_rate": 0.2, "linear_path": False},
    }  # fmt: skip
    """Published networks as keyword arguments, for ``FedSCGEN(adata, **FedSCGEN.PRESETS["scarches"])``.

    ``"scarches"`` is the one of FedscGen (Bakhtiari et al. 2025); ``"scgen"`` has the sizes of scGen 2. Both share this
    class's loss.
    """

    def __init__(
        self,
        adata: AnnData | MuData,
        *,
        n_hidden: int = 800,
        n_layers: int = 2,
        n_latent: int = 20,
        dropout_rate: float = 0.05,
        kl_weight: float = 1e-6,
        normalization: Normalization = "batch",
        linear_path: bool = True,
    ) -> None:
        super().__init__(adata)
        if linear_path and n_latent > self.summary_stats.n_vars:
            raise ValueError(
                f"n_latent={n_latent}: more dimensions than the {self.summary_stats.n_vars} genes; are these all genes "
                "of the experiment? Else choose fewer dimensions"
            )
        self.module = self._module_cls(
            self.summary_stats.n_vars,
            n_hidden=n_hidden,
            n_layers=n_layers,
            n_latent=n_latent,
            dropout_rate=dropout_rate,
            kl_weight=kl_weight,
            normalization=normalization,
            linear_path=linear_path,
        )
        self._model_summary_string = (
            f"FedSCGEN with n_hidden: {n_hidden}, n_layers: {n_layers}, n_latent: {n_latent}, "
            f"dropout_rate: {dropout_rate}, kl_weight: {kl_weight}, "
            f"normalization: {normalization}, linear_path: {linear_path}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: BatchKey = "batch",
        labels_key: str | None = "cell_type",
        layer: str | None = None,
        unlabeled_category: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData; as with every scvi-tools model, this adds ``_scvi`` entries to its ``obs`` and ``uns``.

        Parameters
        ----------
        adata
            Cells x genes, log-normalised.
        batch_key
            Column of ``obs`` with the batches; or a list of columns, whose combinations are the batches, which
            ``obs["fedscgen_batch"]`` then names. ``None``: all cells are one batch, as at a site with a single study.
        labels_key
            Column of ``obs`` with the cell types. ``None``: no cell has a label.
        layer
            Layer with the expression; ``X`` if ``None``.
        unlabeled_category
            What the column of cell types says of cells without a label; those that it says nothing of (NaN) are then
            without a label as well. They are trained on like all others. ``None``: every cell has a label.
        **kwargs
            Passed to scvi-tools' ``AnnDataManager.register_fields``.

        Raises
        ------
        KeyError
            A named key or layer is missing.
        ValueError
            No cell or gene, names that repeat, missing labels, or expression with NaN or inf.

        Warns
        -----
        UserWarning
            The expression looks like raw counts or holds negative values, there is one label only, or a batch has no
            cell with a label.
        """
        if getattr(adata, "is_view", False):
            raise ValueError("this AnnData is a view of another, which nothing can be registered in: pass adata.copy()")
        if batch_key is not None and not isinstance(batch_key, str):
            adata.obs[BATCH_KEY] = join_columns(adata, batch_key)
            batch_key = BATCH_KEY
        setup_method_args = cls._get_setup_method_args(**locals())
        check_data(adata, DataKeys(batch_key, labels_key, layer, unlabeled_category=unlabeled_category))
        cls._register(
            adata,
            setup_method_args,
            [
                LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                LabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category),
            ],
            **kwargs,
        )

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        batch_key: BatchKey = "batch",
        labels_key: str | None = "cell_type",
        layer: str | None = None,
        modality: str = "rna",
        unlabeled_category: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a MuData, of which the model uses one modality's expression.

        Parameters
        ----------
        mdata
            Its ``obs``, or the modality's, holds each column.
        batch_key, labels_key, layer
            As in :meth:`setup_anndata`.
        modality
            Name of the modality with log-normalised RNA expression.
        unlabeled_category
            As in :meth:`setup_anndata`.
        **kwargs
            Passed to scvi-tools' ``AnnDataManager.register_fields``.

        Raises
        ------
        KeyError, ValueError
            As in :meth:`setup_anndata`; or there is no such modality.
        """
        if batch_key is not None and not isinstance(batch_key, str):
            mdata.obs[BATCH_KEY] = join_columns(mdata, batch_key, modality)
            batch_key = BATCH_KEY
        setup_method_args = cls._get_setup_method_args(**locals())
        keys = DataKeys(batch_key, labels_key, layer, modality, unlabeled_category)
        check_data(mdata, keys)
        homes = [None if key is None else keys.column_home(mdata, key) for key in (batch_key, labels_key)]
        cls._register(
            mdata,
            setup_method_args,
            [
                MuDataLayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, mod_key=modality, mod_required=True),
                MuDataCategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key, mod_key=homes[0]),
                MuDataLabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category, mod_key=homes[1]),
            ],
            **kwargs,
        )

    @classmethod
    def _register(
        cls, adata: AnnData | MuData, setup_method_args: dict[str, Any], fields: list[Any], **kwargs: Any
    ) -> None:
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        with warnings.catch_warnings():
            # of no concern here: neither batches nor labels enter the network
            warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

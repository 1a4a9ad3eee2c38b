"""What scvi-tools' models have and this one can't do: said in one sentence each."""

from __future__ import annotations

from typing import Any, NoReturn

from scvi.model.base import BaseModelClass


class InheritedMixin(BaseModelClass):
    """Methods that scvi-tools gives every model, where they mean nothing here."""

    def get_normalized_expression(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: the network has no library size; :meth:`correct` gives expression.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "FedSCGEN decodes log-normalised expression without a library size: call correct(), whose "
            "layers['fedscgen_corrected'] holds corrected expression, or correct(denoise=True) for decoded expression"
        )

    def differential_abundance(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: it needs the samples' posteriors of a model that keeps biology and batch apart.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "FedSCGEN's posterior is of uncorrected cells, by which abundances would differ between batches: use "
            "obsm['X_fedscgen'] of correct() with a tool for differential abundance"
        )

    def get_aggregated_posterior(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: of uncorrected cells it would be one for each batch.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "FedSCGEN's posterior is of uncorrected cells, so that a mixture of them has the batches apart: "
            "get_latent_representation(return_dist=True) gives each cell's mean and variance"
        )

    @staticmethod
    def prepare_query_mudata(*args: Any, **kwargs: Any) -> NoReturn:
        """Raise: one modality has the expression, and :meth:`prepare_query_anndata` takes it.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "FedSCGEN looks at one modality: give that one the model's genes, with FedSCGEN.prepare_query_anndata("
            'mdata.mod["rna"], model, inplace=False), and put what it returns into a new MuData'
        )

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise: there is no older format.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "FedSCGEN never wrote scvi-tools' legacy files; for published weights there is "
            "fedscgen.model.read_published_weights"
        )

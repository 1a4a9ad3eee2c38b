"""The end of a run at a site: its cells, corrected by what the run has found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen._data import LATENT_KEY
from fedscgen._types import References
from fedscgen.federation._padding import remove_padding
from fedscgen.federation._site_cells import silence_repeated_warnings

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen.federation._models import FederatedModel
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.federation._site_cells import SiteCells
    from fedscgen.model import CorrectionOptions


def correct_cells(
    model: FederatedModel, cells: SiteCells, settings: FederationSettings, options: CorrectionOptions
) -> AnnData:
    """A corrected copy of the site's cells; a site that is alone finds references itself, which the model then has.

    Parameters
    ----------
    model
        The site's, with the federation's weights and references.
    cells
        The site's.
    settings
        What all sites do alike.
    options
        How the site corrects.

    Raises
    ------
    ValueError
        The model has written no latent vectors.
    """
    adata, keys, references = cells.adata, cells.keys, model.references
    alone = isinstance(references, References) and not references.labels
    if isinstance(references, References) and (alone or keys.batch_key is not None):
        references = cells.add_own_references(references, model.get_latent_representation(), settings)
        model.references = references if alone else model.references
    with silence_repeated_warnings():
        if set(model.genes) <= set(adata.var_names):
            corrected = model.correct(adata, references=references, **vars(options))
        else:
            on_all_genes = model.correct(references=references, **vars(options))
            corrected = remove_padding(adata, on_all_genes, keys, options.expression, keep_genes=options.keep_genes)
    if LATENT_KEY not in corrected.obsm:
        raise ValueError(f"{type(model).__name__}.correct has written no obsm[{LATENT_KEY!r}]")
    return corrected

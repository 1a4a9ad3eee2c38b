"""``fedscgen correct``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedscgen._files import check_readable, create_whole
from fedscgen._types import MAX_MISSING_GENES
from fedscgen._words import quantity
from fedscgen.cli._arguments import OVERWRITE, LabelMap, Layer, Normalize, Overwrite, Unlabelled
from fedscgen.cli._errors import user_errors
from fedscgen.cli._sources import name_types_alike, one_or_several, print_types, read_logarithms

if TYPE_CHECKING:
    from anndata import AnnData


def correct(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="This site's log-normalised cells: .h5ad, .h5mu or .zarr."),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of a saved model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad).")],
    batch_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of obs with batches within this site; repeated, each combination is a batch. "
            "One batch by default."
        ),
    ] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="Column of obs with the cell types; the model's by default.")
    ] = None,
    unlabeled_category: Annotated[
        str | None, typer.Option(help="What the column says of cells without a label; the model's by default.")
    ] = None,
    label_map: LabelMap = None,
    unlabelled: Unlabelled = False,
    layer: Layer = None,
    include_newcomer: Annotated[
        bool,
        typer.Option(
            "--include-newcomer",
            help="Recompute references by cell type as if this site had taken part; landmarks need none of it.",
        ),
    ] = False,
    min_cells: Annotated[int, typer.Option(min=1, help="Fewest cells with which this site enters a reference.")] = 5,
    normalize: Normalize = False,
    allow_unaligned: Annotated[
        bool,
        typer.Option("--allow-unaligned", help="Correct cells even if the model knows none of their types."),
    ] = False,
    max_missing_genes: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the model's genes that the file may lack; they are taken for zero."),
    ] = MAX_MISSING_GENES,
    keep_genes: Annotated[
        bool, typer.Option("--keep-genes", help="Keep genes that the model doesn't know, as they are.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Correct the cells of a site that took no part in training; nothing leaves the site.

    Needs the folder model/ that a federation wrote, and a file with the same genes, in any order; few may be missing.
    Cells without a label get predicted ones.
    """
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as target:
        check_readable(file)
        if not (model / "model.json").is_file():
            raise ValueError(f"{model} holds no FedSCGEN model: model.json is missing")
        from fedscgen._batches import name_batches
        from fedscgen._data import MOVED_KEY, TYPES_KEY
        from fedscgen._output import try_writing, write_cells
        from fedscgen._types import References
        from fedscgen.correction import include_batches
        from fedscgen.model import FedSCGEN

        adata, batches = name_batches(read_logarithms(file, layer, normalize), one_or_several(batch_key))
        try_writing(adata, target.parent)
        if label_map is not None:
            labels_key = name_types_alike(adata, None if unlabelled else labels_key or "cell_type", label_map)
        named = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        keys: dict[str, Any] = {
            "batch_key": batches,
            "layer": layer,
            **{key: name for key, name in named.items() if name},
        }
        keys |= {"labels_key": None, "unlabeled_category": None} if unlabelled else {}
        loaded = FedSCGEN.load(model, adata, max_missing_genes=max_missing_genes, **keys)
        if loaded.references is None:
            raise ValueError(f"{model} holds no references: save the model that a federation returned")
        if include_newcomer:
            if not isinstance(loaded.references, References):
                raise ValueError("--include-newcomer is for references by cell type; landmarks serve every newcomer")
            loaded.references = include_batches(loaded.references, loaded.get_label_stats(), min_cells=min_cells)
        corrected = loaded.correct(
            adata if keep_genes else None,
            allow_unaligned=allow_unaligned,
            max_missing_genes=max_missing_genes,
            keep_genes=keep_genes,
        )
        _drop_bookkeeping(corrected)
        write_cells(corrected, target)
    print_types(corrected.uns[TYPES_KEY])
    n_moved = int(corrected.obs[MOVED_KEY].sum())
    typer.echo(f"Wrote {quantity(corrected.n_obs, 'corrected cell')} to {output}. {n_moved} of them moved.")


def _drop_bookkeeping(adata: AnnData) -> None:
    """Drop what registering the data has left in a copy of them."""
    adata.obs = adata.obs.loc[:, ~adata.obs.columns.str.startswith("_scvi")]
    for key in [key for key in adata.uns if key.startswith("_scvi")]:
        del adata.uns[key]

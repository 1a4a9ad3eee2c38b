"""``fedscgen correct``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fedscgen._files import check_readable, create_whole
from fedscgen._types import MAX_MISSING_GENES
from fedscgen._words import quantity
from fedscgen.cli._arguments import OVERWRITE, LabelMap, Layer, Normalize, Overwrite, Unlabelled
from fedscgen.cli._errors import user_errors
from fedscgen.cli._sources import OneModality, name_types_alike, one_or_several, open_logarithms, print_types


def correct(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="This site's log-normalised cells: .h5ad, .h5mu or .zarr."),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of a saved model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File (.h5ad) or folder (.zarr) to write.")],
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
    modality: OneModality = None,
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
    Cells without a label get predicted ones. Expression is read from .h5ad and .zarr, and written, some cells at a
    time, so that memory needn't hold it.
    """
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as target:
        check_readable(file)
        if not (model / "model.json").is_file():
            raise ValueError(f"{model} holds no FedSCGEN model: model.json is missing")
        from fedscgen._batches import name_batches
        from fedscgen._data import MOVED_KEY, TYPES_KEY, first_cells
        from fedscgen._result_file import check_suffix
        from fedscgen._types import References
        from fedscgen.correction import include_batches
        from fedscgen.model import FedSCGEN

        check_suffix(output, "--output")
        with open_logarithms(file, layer, normalize, modality) as given:
            adata, batches = name_batches(given, one_or_several(batch_key))
            if label_map is not None:
                labels_key = name_types_alike(adata, None if unlabelled else labels_key or "cell_type", label_map)
            named = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
            keys: dict[str, Any] = {
                "batch_key": batches,
                "layer": layer,
                **{key: name for key, name in named.items() if name},
            }
            keys |= {"labels_key": None, "unlabeled_category": None} if unlabelled else {}
            registered = adata.to_memory() if include_newcomer else first_cells(adata, layer)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # correct() says it of all cells
                loaded = FedSCGEN.load(model, registered, max_missing_genes=max_missing_genes, **keys)
            if loaded.references is None:
                raise ValueError(f"{model} holds no references: save the model that a federation returned")
            if include_newcomer:
                if not isinstance(loaded.references, References):
                    raise ValueError(
                        "--include-newcomer is for references by cell type; landmarks serve every newcomer"
                    )
                loaded.references = include_batches(loaded.references, loaded.get_label_stats(), min_cells=min_cells)
            corrected = loaded.correct(
                adata,
                allow_unaligned=allow_unaligned,
                max_missing_genes=max_missing_genes,
                keep_genes=keep_genes,
                out=target,
            )
    print_types(corrected.uns[TYPES_KEY])
    n_moved = int(corrected.obs[MOVED_KEY].sum())
    typer.echo(f"Wrote {quantity(corrected.n_obs, 'corrected cell')} to {output}. {n_moved} of them moved.")

"""Raw counts as hospitals hold them, made from real cells that come with scanpy."""

import gzip

import h5py
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from scipy.io import mmwrite

GENE_TABLE = """hgnc_id\tsymbol\tprev_symbol\talias_symbol\tensembl_gene_id
HGNC:1\tCD3E\t\tT3E|\tENSG00000198851
HGNC:2\tMARCHF1\t"MARCH1"\t"MARCH-I|RNF171"\tENSG00000145416
HGNC:3\tADGRE5\t"CD97"\tTM7LN1|SHARED\tENSG00000123146
HGNC:4\tMS4A1\t"CD20"\t"B1|SHARED"\tENSG00000156738
HGNC:5\tMT-ND1\t"MTND1"\tND1\tENSG00000198888
HGNC:6\tB1\t\t\t
"""


def real_counts() -> AnnData:
    """700 cells x 765 genes of measured counts, with obs["cell_type"]."""
    source = sc.datasets.pbmc68k_reduced()
    totals = source.obs["n_counts"].to_numpy() / 1e4
    counts = sparse.csr_matrix(source.raw.X, dtype=np.float64, copy=True)
    counts.data = np.rint(np.expm1(counts.data) * np.repeat(totals, np.diff(counts.indptr)))
    obs = pd.DataFrame({"cell_type": source.obs["bulk_labels"].astype(str)}, index=source.obs_names)
    return AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=source.raw.var_names))


def write_10x_folder(folder, adata: AnnData, ids, symbols, *, with_cells: bool = True):
    """Write what Cell Ranger 3 does, and cells.csv beside it."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb", 1) as file:
        mmwrite(file, sparse.coo_matrix(adata.X.T.astype(np.int64)))
    features = pd.DataFrame({"id": ids, "symbol": symbols, "type": "Gene Expression"})
    features.to_csv(folder / "features.tsv.gz", sep="\t", header=False, index=False)
    pd.Series(adata.obs_names).to_csv(folder / "barcodes.tsv.gz", header=False, index=False)
    if with_cells:
        adata.obs.to_csv(folder / "cells.csv")
    return folder


def write_10x_h5(path, adata: AnnData, symbols=None):
    """Write Cell Ranger's file, with ``var_names`` for ids."""
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["data"], matrix["indices"], matrix["indptr"] = (
            adata.X.data.astype(np.int32),
            adata.X.indices.astype(np.int64),
            adata.X.indptr.astype(np.int64),
        )
        matrix["shape"] = np.array(adata.shape[::-1], np.int32)
        matrix["barcodes"] = adata.obs_names.to_numpy().astype("S")
        features = matrix.create_group("features")
        features["id"] = adata.var_names.to_numpy().astype("S")
        features["name"] = np.asarray(adata.var_names if symbols is None else symbols).astype("S")
        features["feature_type"] = np.array(["Gene Expression"] * adata.n_vars, "S")
        features["genome"] = np.array(["GRCh38"] * adata.n_vars, "S")
    return path

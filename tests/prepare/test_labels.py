"""Cell types that sites call by different names are found, and named alike where somebody has agreed."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from fedscgen._spelling import find_meaning, look_alike, simplify
from fedscgen.prepare import add_common_labels, propose_labels, read_label_map, write_label_map


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("T cells", "t_cell"),
        ("CD8+ T", "CD8+ T-Cells"),
        ("NK", "Natural Killer cells"),
        ("NKs", "NK"),
        ("Monocytes", "monocyte"),
        ("CL:0000084", "T cell"),
        ("CL_0000236", "B lymphocytes"),
        ("Tregs", "CL:0000815"),
        ("CD14+ Monocyte", "classical monocytes"),
        ("CD4+/CD25 T Reg", "cd4+ cd25 t reg"),
        ("CD19+ B", "cd19+_bs"),
        ("T helper cells", "CL:0000912"),
        ("Mono_CD14", "CD14+ Monocytes"),
        ("T_CD8", "CD8-positive, alpha-beta T cell"),
        ("CD14-positive monocyte", "CL:0001054"),
        ("CD16 Monocytes", "CL:0002396"),
    ],
)
def test_spellings_and_synonyms_mean_one_type(one, other):
    assert find_meaning(one) == find_meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CD4+ T", "CD8+ T"),
        ("CD25+ T", "CD25- T"),
        ("CD4- CD8 T", "CD8- CD4 T"),
        ("CD4- T", "CD4 T"),
        ("T cell", "B cell"),
        ("T helper", "CD4+ T"),
        ("naive B", "memory B"),
        ("alpha", "beta"),
        ("Th1", "Th17"),
        ("+", "-"),
    ],
)
def test_types_that_differ_are_never_thought_one(one, other):
    assert find_meaning(one) != find_meaning(other)
    assert not look_alike(simplify(one), simplify(other))


def test_proposal_takes_the_name_of_most_sites_and_leaves_slips_to_a_person():
    found = propose_labels(
        {
            "a": ["T cell", "CL:0000236", "Macrophage", "gamma"],
            "b": ["T cell", "B-cells", "Macrophage"],
            "c": ["T lymphocytes", "CD8 T", "Macrophgae"],
        }
    )
    assert found.sure == {"CL:0000236": "B-cells", "T lymphocytes": "T cell"}
    assert found.doubtful == {"Macrophgae": "Macrophage"}


def test_a_map_that_is_known_is_extended():
    known = {"t_cells": "T cell", "x": "y"}
    assert propose_labels({"a": ["T cell"], "b": ["T cell"], "c": ["T lymphocyte"]}).extend(known).sure == {
        **known,
        "T lymphocyte": "T cell",
    }


def test_map_is_written_read_and_applied_beside_the_own_names(tmp_path):
    write_label_map(
        tmp_path / "labels.toml", propose_labels({"a": ["T cell", "Macrophage"], "b": ["t_cells", "Macrophgae"]})
    )
    label_map = read_label_map(tmp_path / "labels.toml")
    assert label_map == {"t_cells": "T cell"}
    assert '# "Macrophgae" = "Macrophage"' in (tmp_path / "labels.toml").read_text()
    adata = AnnData(np.ones((3, 1)), obs=pd.DataFrame({"own": ["t_cells", None, "B"]}, index=list("abc")))
    key = add_common_labels(adata, label_map, labels_key="own")
    assert adata.obs[key].isna().tolist() == [False, True, False]
    assert adata.obs[key].tolist()[::2] == ["T cell", "B"]
    assert adata.obs["own"].tolist()[0] == "t_cells"
    with pytest.raises(KeyError, match="obs\\['cell_type'\\] not found; there are 'own'"):
        add_common_labels(adata, label_map)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[labels]\na = 1", "'a' = 1: expected the common name"),
        ("[labels]\na = 'b'\nb = 'c'", "'a' = 'b', which is 'c' itself"),
        ("[label]\na = 'b'", r"expected the table \[labels\] alone, not 'label'"),
        ("a =", "is not TOML"),
    ],
)
def test_bad_map_is_told(tmp_path, text, said):
    (tmp_path / "labels.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_label_map(tmp_path / "labels.toml")

import numpy as np
import pytest

from cells import make_adata
from fedscgen.datasets import apply_inclusion

MINOR = ["type1", "type3"]


def test_all_leaves_the_data_as_they_are(adata):
    assert apply_inclusion(adata, "all", MINOR) is adata


def test_dropped_leaves_out_the_minor_types_and_what_is_then_unused(adata):
    adata = adata[(adata.obs["batch"] != "site2") | adata.obs["cell_type"].isin(MINOR)].copy()
    before = adata.obs.copy()
    dropped = apply_inclusion(adata, "dropped", MINOR)
    kept = ~adata.obs["cell_type"].isin(MINOR)
    assert dropped.obs_names.tolist() == adata.obs_names[kept].tolist()
    assert dropped.obs["cell_type"].cat.categories.tolist() == ["type0", "type2"]
    assert dropped.obs["batch"].cat.categories.tolist() == ["site0", "site1"]
    assert (adata.X[kept.to_numpy()] != dropped.X).nnz == 0
    assert adata.obs.equals(before)


def test_combined_names_the_minor_types_others(adata):
    before = adata.obs.copy()
    combined = apply_inclusion(adata, "combined", MINOR)
    names = adata.obs["cell_type"].astype(str)
    expected = np.where(names.isin(MINOR), "others", names)
    assert combined.obs["cell_type"].tolist() == expected.tolist()
    assert combined.obs["cell_type"].cat.categories.tolist() == ["others", "type0", "type2"]
    assert combined.obs_names.tolist() == adata.obs_names.tolist()
    assert adata.obs.equals(before)


def test_results_do_not_share_what_is_altered_later(adata):
    for inclusion in ("dropped", "combined"):
        apply_inclusion(adata, inclusion, MINOR).X.data[:] = 0
    assert (adata.X != make_adata().X).nnz == 0


@pytest.mark.parametrize("inclusion", ["dropped", "combined"])
def test_a_type_that_no_cell_has_is_refused(adata, inclusion):
    with pytest.raises(ValueError, match=r"minor types \['NK'\].* holds \['type0', 'type1', 'type2', 'type3'\]"):
        apply_inclusion(adata, inclusion, ["type1", "NK"])


@pytest.mark.parametrize("inclusion", ["dropped", "combined"])
def test_no_minor_type_is_refused(adata, inclusion):
    with pytest.raises(ValueError, match="none are named: use 'all'"):
        apply_inclusion(adata, inclusion, [])


def test_dropping_everything_is_refused(adata):
    with pytest.raises(ValueError, match="no cell would be left"):
        apply_inclusion(adata, "dropped", [f"type{i}" for i in range(4)])


def test_another_type_named_others_is_not_mixed_up(adata):
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"type0": "others"})
    with pytest.raises(ValueError, match="a type 'others' already"):
        apply_inclusion(adata, "combined", MINOR)
    named = apply_inclusion(adata, "combined", [*MINOR, "others"])
    assert named.obs["cell_type"].cat.categories.tolist() == ["others", "type2"]


def test_an_unknown_scenario_is_refused(adata):
    with pytest.raises(ValueError, match="unknown inclusion scenario 'some'"):
        apply_inclusion(adata, "some", MINOR)

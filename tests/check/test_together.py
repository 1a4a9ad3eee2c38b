"""Sites find out over a transport, before anybody trains, what stands in the way; what they tell is little."""

import numpy as np
import pytest

from cells import SMALL
from fedscgen._types import Message
from fedscgen.check import SiteCheck, check_sites, check_together, describe_check, write_check_page
from fedscgen.federation import (
    FederationSettings,
    InProcessTransport,
    PolicyError,
    PrivacyLedger,
    SiteError,
    SiteOptions,
    SitePolicy,
)
from fedscgen.prepare import PrepareOptions, prepare, read_label_map
from raw_counts import real_counts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")


@pytest.fixture(scope="module")
def hospitals():
    """Three sites of prepared cells: b spells a type otherwise, c has few cells of one and no column for another."""
    prepared = prepare(real_counts(), PrepareOptions(min_genes=0, max_mito=None))
    sites = {name: prepared[i::3].copy() for i, name in enumerate("abc")}
    types = {name: adata.obs["cell_type"].astype(object) for name, adata in sites.items()}
    types["b"] = types["b"].replace("CD56+ NK", "cd56+ nk cells")
    kept = np.flatnonzero(types["c"] == "Dendritic")[:3]
    types["c"] = types["c"].replace("Dendritic", "CD34+")
    types["c"].iloc[kept] = "dendritic cells"
    for name, adata in sites.items():
        adata.obs["cell_type"] = types[name]
    return sites


class Wire(InProcessTransport):
    """Keeps every byte that leaves a site."""

    def __init__(self, clients):
        super().__init__(clients)
        self.sent = []

    def ask(self, messages):
        for site, answer in super().ask(messages):
            self.sent.append((site, answer.kind, answer.to_buffer().tobytes()))
            yield site, answer


def run(sites, settings=None, options=None, folder=None, **more):
    """What the coordinator finds, and the way to the sites."""
    clients = [
        SiteCheck(
            name,
            adata,
            (options or {}).get(name, SiteOptions()),
            PrivacyLedger(),
            folder=None if folder is None else folder / name,
            **more,
        )
        for name, adata in sites.items()
    ]
    for client in clients if folder is not None else ():
        (folder / client.site).mkdir()
    transport = Wire(clients)
    checked = check_together(transport, settings or FederationSettings(model=SMALL))
    assert all(client.finished for client in clients)
    return checked, transport, clients


def texts(checked, weight):
    return [one.text for one in checked.findings if one.weight == weight]


def test_the_table_is_that_of_a_check_of_files(hospitals, tmp_path):
    checked, _, _ = run(hospitals)
    assert checked.genes == list(hospitals["a"].var_names)
    assert "'cd56+ nk cells' looks like 'CD56+ NK': accept it in labels.toml" in texts(checked, "obstacle")[0]
    fates = checked.fates.set_index(["site", "cell_type"])
    assert tuple(fates.loc[("a", "CD14+ Monocyte")]) == (5, "by its label"), "the least that it may have"
    assert fates.loc[("b", "cd56+ nk cells"), "corrected"] == "with its batch: too few sites report it"
    few = {name: (adata.obs["cell_type"].value_counts() < 5).sum() for name, adata in hospitals.items()}
    assert few["c"] == 2
    for name, n_types in few.items():
        assert f"{name}: {n_types} types of too few cells are not told by name" in texts(checked, "note")
    write_check_page(tmp_path / "check.html", checked)
    assert "5 or more by its label" in (tmp_path / "check.html").read_text()
    assert "a tells its 765 gene names" in describe_check(checked)


def test_how_sure_names_will_be_is_not_found_over_a_network(hospitals):
    c = hospitals["c"].copy()
    del c.obs["cell_type"]
    checked, _, _ = run({**hospitals, "c": c})
    assert checked.common_types
    assert checked.rehearsal is None
    assert "Sites that check over their network don't find out" in describe_check(checked)


def test_little_leaves_a_site(hospitals):
    _, transport, clients = run(hospitals)
    wire = b"".join(data for _, _, data in transport.sent)
    assert b"CD14+ Monocyte" in wire, "the search finds what does cross"
    for hidden in (b"dendritic cells", hospitals["a"].obs_names[0].encode(), b"233", b"234"):
        assert hidden not in wire, "names of few cells, names of cells, exact numbers of cells"
    assert {kind for _, kind, _ in transport.sent} == {"what a site has", "names in use"}
    for client in clients:
        ledger = client._ledger.to_frame()
        assert list(ledger["kind"]) == ["what a site has"] * 2 + ["names in use"] * 2
        assert set(ledger["protection"]) == {"none"}


def test_each_site_gets_names_for_its_own_types_the_rare_ones_among_them(hospitals, tmp_path):
    checked, _, _ = run(hospitals, folder=tmp_path)
    assert read_label_map(tmp_path / "b" / "labels.toml") == {"cd56+ nk cells": "CD56+ NK"}
    assert read_label_map(tmp_path / "c" / "labels.toml") == {"dendritic cells": "Dendritic"}
    assert not (tmp_path / "a" / "labels.toml").exists()
    assert dict(checked.proposal.sure) == {"cd56+ nk cells": "CD56+ NK"}
    maps = read_label_map(tmp_path / "b" / "labels.toml")
    again, _, _ = run({name: hospitals[name] for name in "ab"}, label_map=maps)
    assert "CD56+ NK" in again.common_types
    assert again.proposal.sure == {}


@pytest.mark.parametrize("label_salt", [None, "of all hospitals"])
def test_each_site_gets_a_page_about_its_own_cells(hospitals, tmp_path, label_salt):
    c = hospitals["c"].copy()
    del c.obs["cell_type"]
    sites = {**hospitals, "c": c}
    checked, _, _ = run(sites, folder=tmp_path, label_salt=label_salt)
    pages = {name: (tmp_path / name / "check.html").read_text() for name in sites}
    renamed = "cd56+ nk" if label_salt else "CD56+ NK"
    assert f"&#x27;cd56+ nk cells&#x27; looks like &#x27;{renamed}&#x27;: accept it in labels.toml" in pages["b"]
    n_cells = int((hospitals["b"].obs["cell_type"] == "CD14+ Monocyte").sum())
    assert f"<th scope='row'>CD14+ Monocyte</th><td>{n_cells} by its label</td>" in pages["b"]
    assert f"{c.n_obs} named by the classifier, and moved by that" in pages["c"]
    for name, page in pages.items():
        assert f"Before {name} trains with others" in page
        assert not any(f"{other} tells its" in page for other in sites if other != name)
    assert len(checked.common_types) > 5


def test_hashed_names_are_compared_by_what_they_mean(hospitals, tmp_path):
    checked, transport, _ = run(hospitals, folder=tmp_path, label_salt="of all hospitals")
    wire = b"".join(data for _, _, data in transport.sent).lower()
    for name in (b"monocyte", b"cd56+", b"dendritic"):
        assert name not in wire
    plain, _, _ = run(hospitals)
    assert len(checked.proposal.sure) == len(plain.proposal.sure) == 1
    assert len(checked.common_types) == len(plain.common_types)
    common = {name: read_label_map(tmp_path / name / "labels.toml") for name in "ab"}
    assert common["a"] == {"CD56+ NK": "cd56+ nk"}
    assert common["b"] == {"cd56+ nk cells": "cd56+ nk"}
    again, _, _ = run(
        {"a": hospitals["a"], "b": hospitals["b"]},
        label_map={**common["a"], **common["b"]},
        label_salt="of all hospitals",
    )
    assert again.proposal.sure == {}
    assert len(again.common_types) == len(check_sites({name: hospitals[name] for name in "ab"}).common_types) + 1


def test_some_that_hash_and_some_that_do_not_are_named(hospitals):
    clients = [
        SiteCheck(name, adata, SiteOptions(), PrivacyLedger(), label_salt="x" if name == "b" else None)
        for name, adata in hospitals.items()
    ]
    with pytest.raises(SiteError, match="only b hash their cell types: give all sites the same label salt, or none"):
        check_together(InProcessTransport(clients), FederationSettings())


def test_every_obstacle_is_named(hospitals):
    a, b, c = (hospitals[name].copy() for name in "abc")
    a.X = a.layers["counts"]
    b = prepare(b, PrepareOptions(layer="counts", min_genes=0, max_mito=None, target_sum=1e5))
    c.var_names = [f"ENSG{i:011}" for i in range(c.n_vars)]
    del c.obs["cell_type"]
    options = {"b": SiteOptions(min_holders=4), "c": SiteOptions(min_cells=9)}
    policy = SitePolicy(aggregators=("crypten",))
    settings = FederationSettings(target_sum=1e4, genes="union")
    checked, _, _ = run({"a": a, "b": b, "c": c}, settings, options, policy=policy)
    said = "\n".join(texts(checked, "obstacle"))
    for part in (
        "a: raw counts",
        "b: normalised to 100,000 molecules per cell, and the federation to 10,000",
        "b would refuse: its cells were not normalised to 10,000 molecules",
        "c: ensembl",
        "a would refuse: the federation wants to sum with 'masked', but the site allows only 'crypten'",
        "c would refuse: the federation wants to work on genes that this site alone may have",
        "min_holders=4 is more than there are sites",
    ):
        assert part in said
    assert "a would refuse: its cells" not in said, "of counts something else is said"
    assert "c: no cell has a label; no site's labels help" in texts(checked, "note")
    assert "No cell gets a name" in describe_check(checked)


def test_a_site_takes_part_in_a_check_only_if_its_policy_says_so(hospitals):
    policy = SitePolicy(workflows=("training",))
    with pytest.raises(SiteError, match="wants to run a check, but the site allows training only: to take part, the s"):
        run(hospitals, policy=policy)
    policy = SitePolicy(workflows=("check",))
    checked, _, _ = run(hospitals, policy=policy)
    assert "a would refuse: the federation wants to run a training, but the site allows check only" in " ".join(
        texts(checked, "obstacle")
    )
    with pytest.raises(ValueError, match="unknown workflow 'tests': choose one of 'training', 'correction', 'check'"):
        SitePolicy(workflows=("tests",))


def test_a_check_answers_nothing_else(hospitals):
    client = SiteCheck("a", hospitals["a"], SiteOptions(), PrivacyLedger())
    with pytest.raises(PolicyError, match="in which nobody asks for 'holders of cell types'"):
        client.handle(Message("holders of cell types", {"task": "holders of cell types", "number": 1}).to_bytes())
    with pytest.raises(PolicyError, match="a check begins with the question what the site has"):
        client.handle(Message("names in use", {"names": ["CD34+"], "map": {}, "common": [], "n_genes": 1}).to_bytes())


def test_cells_of_a_check_are_not_changed(hospitals):
    before = hospitals["b"].copy()
    run(hospitals)
    assert list(hospitals["b"].obs.columns) == list(before.obs.columns)
    assert (hospitals["b"].X != before.X).nnz == 0


def test_sums_are_told_without_those_of_single_cells(hospitals):
    a = hospitals["a"].copy()
    a.X[0] *= 1.2
    checked, _, _ = run({"a": a, "b": hospitals["b"]})
    assert checked.sites[0].sums == (10_000.0, 10_000.0, 10_000.0)
    settings = FederationSettings(target_sum=1e4)
    checked, _, _ = run({"a": a, "b": hospitals["b"]}, settings)
    assert texts(checked, "obstacle")[0].startswith("a would refuse: its cells were not normalised to 10,000")

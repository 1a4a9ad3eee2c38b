"""Sums for landmarks: what each site sends, what is opened of it, and what becomes of a site that falls silent."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from cells import SMALL, make_adata
from fedscgen._types import Message
from fedscgen.federation import FederationSettings, InProcessTransport, Plan, PolicyError, Server, SiteError
from fedscgen.secure import PlainAggregator, error_bound, make_aggregator
from quick import make_client

LANDMARKS = "sums near landmarks"
SETTINGS = FederationSettings(n_rounds=0, n_epochs=1, min_sites=1, model=SMALL, seed=0)
STEPS = ["labels", *["holders", "means"] * 3, "calibration"]
OF_LABELS = {"n_cells", "sum", "products", "label_counts", "label_sums", "label_products", "n_others"}
ARRAYS = {
    "labels": OF_LABELS,
    "holders": {"holders"},
    "means": OF_LABELS | {"cells", "weights", "positions"},
    "calibration": {"log_likelihoods"},
}
MIN_CELLS = 5


class Asked(NamedTuple):
    """What both ends of a run know that the sites are asked."""

    step: str
    open: list[int]
    labels: tuple[str, ...]


class Recorded(InProcessTransport):
    """Keeps questions and answers about landmarks; a site is away the first times that a step is asked for."""

    def __init__(self, clients, site=None, step=None, times=1):
        super().__init__(clients)
        self.away, self.step, self.times = site, step, times
        self.asked, self.answers, self.wire = [], [], b""
        self.asked_with = set()

    def ask(self, messages):
        message = next(iter(messages.values()))
        away = None
        if message.kind == LANDMARKS:
            self.asked.append((message.meta["step"], list(messages)))
            if message.meta["step"] == self.step and self.times:
                away, self.times = self.away, self.times - 1
        self.wire += message.to_bytes()
        self.asked_with |= {name for message in messages.values() for name in (*message.meta, *message.arrays)}
        for site, answer in super().ask({site: m for site, m in messages.items() if site != away}):
            self.wire += answer.to_bytes()
            if message.kind == LANDMARKS:
                task = self.server._program.task
                self.answers.append((site, Asked(task.question.step, task.question.open, task.labels), answer))
            yield site, answer


class Opened:
    """Keeps what an aggregator opens for landmarks."""

    def __init__(self, aggregator):
        self.sums = []
        self._sum = aggregator.sum
        aggregator.sum = self

    def __call__(self, ask, sites, task, **options):
        opened = self._sum(ask, sites, task, **options)
        if task.kind == LANDMARKS:
            self.sums.append((task.meta["step"], list(sites), opened.arrays))
        return opened


def split(adata):
    return {site: adata[adata.obs["batch"] == site].copy() for site in adata.obs["batch"].cat.categories}


def run(adata, secure="plain", settings=SETTINGS, site=None, step=None, options=None, times=1):
    """A federation; ``options`` of clients are by site."""
    parts = split(adata)
    aggregator = make_aggregator(secure, len(parts))
    opened = Opened(aggregator)
    clients = {
        name: make_client(name, part, aggregator.contributor(name), seed=i, **(options or {}).get(name, {}))
        for i, (name, part) in enumerate(parts.items())
    }
    transport = Recorded(list(clients.values()), site, step, times)
    server = transport.server = Server(transport, aggregator, settings)
    with aggregator:
        server.run()
    return server, transport, clients, opened.sums


@pytest.fixture(scope="module")
def plain():
    """A run in the clear, in which a type is rare at one site."""
    adata = make_adata(n_cells=240)
    labels = adata.obs["cell_type"].astype(str)
    rare = np.flatnonzero((adata.obs["batch"] == "site0") & (labels == "type2"))
    labels.iloc[rare[3:]] = "type1"
    labels.iloc[rare[1:3]] = "secret disease"
    adata.obs["cell_type"] = labels.astype("category")
    return adata, *run(adata)


def test_sites_are_asked_eight_times_and_are_sent_no_question(plain):
    _, _, transport, _, _ = plain
    assert [step for step, _ in transport.asked] == STEPS
    of_task = {"task", "number", "step", "opened"}
    others = {"genes", "labels", "min_holders", "n_cells_at_most", "introductions", *Plan.__dataclass_fields__}
    assert {name for name in transport.asked_with if not name.startswith("opened sum ")} == of_task | others
    for _, question, answer in transport.answers:
        assert set(answer.arrays) == ARRAYS[question.step] | {"weight."}
        assert set(answer.meta) == {"protection", "sketch"}, "no name of a type either"


def test_the_first_answer_holds_sums_over_types_of_enough_cells(plain):
    """Written out in numpy: counts, sums and products of the latent vectors by label, and of all cells but too few."""
    adata, server, transport, clients, _ = plain
    for site, question, answer in transport.answers[:3]:
        assert question.labels == ("type0", "type1", "type2", "type3")
        latent = clients[site].model.get_latent_representation().astype(np.float64)
        own = adata.obs.loc[adata.obs["batch"] == site, "cell_type"].to_numpy()
        of_type = np.array([own == label for label in server.labels])
        told = of_type & (of_type.sum(axis=1) >= MIN_CELLS)[:, None]
        assert told.any(axis=1).tolist() == [True, True, site != "site0", True]
        sums = answer.arrays
        np.testing.assert_array_equal(sums["label_counts"], told.sum(axis=1))
        np.testing.assert_allclose(sums["label_sums"], told @ latent)
        told_cells = latent[told.any(axis=0)]
        np.testing.assert_allclose(sums["label_products"], told_cells.T @ told_cells)
        n_alike = np.array([(own == label).sum() for label in own])
        few = n_alike < MIN_CELLS
        shown = ~few | (few.sum() >= MIN_CELLS)
        assert sums["n_cells"] == shown.sum()
        np.testing.assert_allclose(sums["sum"], latent[shown].sum(axis=0))
        np.testing.assert_allclose(sums["products"], latent[shown].T @ latent[shown])
        assert sums["n_others"] == (own[shown] == "secret disease").sum()


@pytest.mark.parametrize("n_rare", [1, MIN_CELLS - 1, MIN_CELLS])
def test_no_difference_of_sums_is_of_fewer_cells_than_a_mean(n_rare):
    """All cells less those of the types is what is left: were it one cell, its latent vector would be open."""
    adata = make_adata()
    names = adata.obs["cell_type"].astype(str)
    names.iloc[np.flatnonzero(adata.obs["batch"] == "site1")[:n_rare]] = "rare"
    adata.obs["cell_type"] = names
    _, _, _, opened = run(adata)
    first = opened[0][2]
    left = first["n_cells"] - first["label_counts"].sum()
    assert left == first["n_others"] == (n_rare if n_rare >= MIN_CELLS else 0)
    if not left:
        np.testing.assert_allclose(first["sum"], first["label_sums"].sum(axis=0), atol=1e-9)
        np.testing.assert_allclose(first["products"], first["label_products"], atol=1e-9)


@pytest.mark.filterwarnings("ignore:site 'site1'. too few cells")
def test_sums_over_a_site_of_few_cells_show_none_of_them():
    adata = make_adata()
    few = np.flatnonzero(adata.obs["batch"] == "site1")[MIN_CELLS - 1 :]
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), few)].copy()
    _, transport, _, _ = run(adata)
    for site, _, answer in transport.answers:
        shown = {name: array for name, array in answer.arrays.items() if name != "weight."}
        assert any(array.any() for array in shown.values()) == (site != "site1")


def test_later_answers_differ_from_the_first_by_the_sites_shift_alone_while_labels_are_trusted(adata):
    """All cells of a site are moved alike, so that its types' means move alike."""
    _, transport, _, _ = run(adata, settings=replace(SETTINGS, label_noise=0))
    first = {site: answer.arrays for site, _, answer in transport.answers[:3]}
    shifts = []
    for site, question, answer in transport.answers:
        if question.step == "means":
            before, after = first[site], answer.arrays
            shift = (before["sum"] - after["sum"]) / before["n_cells"]
            shifts.append(np.abs(shift).max())
            np.testing.assert_array_equal(after["label_counts"], before["label_counts"])
            moved = before["label_sums"] - before["label_counts"][:, None] * shift
            np.testing.assert_allclose(after["label_sums"], moved, atol=1e-9)
    assert min(shifts[-3:]) > 0.01


def test_means_near_landmarks_are_of_enough_cells(plain):
    _, _, transport, _, _ = plain
    held, n_empty = {}, 0
    for site, question, answer in transport.answers:
        if question.step == "holders":
            held[site] = answer.arrays["holders"]
            assert set(np.unique(held[site])) <= {0.0, 1.0}
        if question.step == "means":
            cells, chosen = answer.arrays["cells"], question.open
            enough = held[site][chosen] == 1
            assert cells[enough].min() >= MIN_CELLS
            for name in ("cells", "weights", "positions"):
                assert not answer.arrays[name][~enough].any()
            n_empty += (~enough).sum()
    assert n_empty, "some landmarks have few cells at a site"


def test_means_are_opened_of_landmarks_alone_that_two_sites_hold(plain):
    _, _, transport, _, sums = plain
    n_holders, n_closed = None, 0
    for (step, _, arrays), (_, question, _) in zip(sums, transport.answers[::3], strict=True):
        if step == "holders":
            n_holders = arrays["holders"]
        if step == "means":
            assert question.open == np.flatnonzero(n_holders >= 2).tolist()
            n_closed += (n_holders < 2).sum()
    assert n_closed


def test_no_cell_and_no_rare_type_is_in_any_message(plain):
    adata, _, transport, clients, _ = plain
    assert b"secret disease" not in transport.wire
    assert b'"type1"' in transport.wire, "the search finds what does cross"
    for client in clients.values():
        latent = client.model.get_latent_representation()
        for row in (*latent, *latent.astype(np.float64)):
            assert row.tobytes() not in transport.wire
    assert not any(f'"{name}"'.encode() in transport.wire for name in adata.obs_names)


def test_a_label_of_few_cells_counts_together_with_the_nearest_cells_without_one():
    """Where a tenth of the cells have labels, one of them stands for ten."""
    adata = make_adata(n_cells=450)
    labels = adata.obs["cell_type"].astype(str)
    labels[np.random.default_rng(1).random(450) < 0.9] = "?"
    adata.obs["cell_type"] = labels.astype("category")
    _, transport, clients, _ = run(adata, options={site: {"unlabeled_category": "?"} for site in split(adata)})
    n_few = 0
    for site, question, answer in transport.answers[:3]:
        own = adata.obs.loc[adata.obs["batch"] == site, "cell_type"].to_numpy()
        latent = clients[site].model.get_latent_representation().astype(np.float64)
        for i, label in enumerate(question.labels):
            cells = np.flatnonzero(own == label)
            if 0 < len(cells) < MIN_CELLS:
                n_few += 1
                near = np.flatnonzero((own == label) | (own == "?"))
                groups = [near[np.argsort(((latent[near] - latent[cell]) ** 2).sum(axis=1))[:MIN_CELLS]]
                          for cell in cells]  # fmt: skip
                expected = np.mean([latent[group].mean(axis=0) for group in groups], axis=0)
                sent = answer.arrays["label_sums"][i] / answer.arrays["label_counts"][i]
                np.testing.assert_allclose(sent, expected)
    assert n_few


def test_a_label_that_its_neighbours_contradict_is_not_sent_as_one_cell():
    adata = make_adata(n_cells=450)
    labels = adata.obs["cell_type"].astype(str)
    at_site = (adata.obs["batch"] == "site0").to_numpy()
    adata = adata[~(at_site & (labels == "type3").to_numpy())].copy()
    labels = adata.obs["cell_type"].astype(str)
    at_site = (adata.obs["batch"] == "site0").to_numpy()
    labels[at_site & (np.random.default_rng(1).random(adata.n_obs) < 0.9)] = "?"
    (cell, *_) = np.flatnonzero(at_site & (labels == "type0"))
    labels.iloc[cell] = "type3"
    adata.obs["cell_type"] = labels.astype("category")
    _, transport, clients, _ = run(adata, options={site: {"unlabeled_category": "?"} for site in split(adata)})
    latent = clients["site0"].model.get_latent_representation().astype(np.float64)
    for site, question, answer in transport.answers:
        if site == "site0" and question.step == "means":
            sums = answer.arrays
            shift = latent.mean(axis=0) - sums["sum"] / sums["n_cells"]
            mean = sums["label_sums"][3] / sums["label_counts"][3] + shift
            assert np.linalg.norm(latent - mean, axis=1).min() > 0.01


def test_a_type_that_one_of_two_sites_doubts_is_not_opened_of_the_other_alone():
    adata = make_adata(n_cells=300, n_batches=2)
    labels = adata.obs["cell_type"].astype(str)
    at_site = (adata.obs["batch"] == "site1").to_numpy()
    adata = adata[~(at_site & (labels == "type3").to_numpy())].copy()
    labels = adata.obs["cell_type"].astype(str)
    doubtful = np.flatnonzero((adata.obs["batch"] == "site1") & (labels == "type0"))[:6]
    labels.iloc[doubtful] = "type3"
    adata.obs["cell_type"] = labels.astype("category")
    _, transport, _, sums = run(adata, settings=replace(SETTINGS, label_noise=0.1))
    for _, question, answer in transport.answers:
        if question.step == "means":
            assert answer.arrays["label_counts"][3] >= MIN_CELLS
    assert len(sums) == len(STEPS)


def test_hashed_labels_are_in_no_message(adata):
    options = {site: {"label_salt": "a long secret"} for site in split(adata)}
    _, transport, _, _ = run(adata, options=options)
    assert not re.search(rb"type\d", transport.wire)
    _, transport, _, _ = run(adata)
    assert re.search(rb"type\d", transport.wire), "the search finds what does cross"


@pytest.mark.parametrize("secure", ["masked", "crypten"])
def test_secure_sums_give_the_same_landmarks_and_cells(adata, secure):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    if secure == "crypten":
        pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
    server, _, clients, sums = run(adata)
    hidden, _, hidden_clients, hidden_sums = run(adata, secure)
    aggregator = make_aggregator(secure, 3)
    with aggregator:
        bound = error_bound(aggregator.precision_for(3), 3)
    assert bound < 1e-8
    assert [step for step, *_ in hidden_sums] == STEPS
    for name, array in sums[0][2].items():  # later questions depend on what was opened before
        tolerance = 100 * bound if "products" in name or "sum" in name else bound
        np.testing.assert_allclose(hidden_sums[0][2][name], array, rtol=1e-6, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(hidden.references.positions, server.references.positions, atol=1e-5)
    np.testing.assert_allclose(hidden.references.n_cells, server.references.n_cells, atol=1e-4)
    assert hidden.references.classifier.temperature == server.references.classifier.temperature
    for site, client in clients.items():
        expected, corrected = client.corrected, hidden_clients[site].corrected
        np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-3)
        assert list(corrected.obs["fedscgen_cell_type"]) == list(expected.obs["fedscgen_cell_type"])


@pytest.mark.parametrize("secure", ["plain", "masked"])
@pytest.mark.parametrize("step", ["holders", "means", "calibration"])
def test_a_site_that_misses_a_question_is_asked_once_more_and_nothing_is_opened_without_it(adata, secure, step, caplog):
    if secure == "masked":
        pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    server, _, clients, sums = run(adata, secure, site="site1", step=step)
    everyone = ["site0", "site1", "site2"]
    assert all(sites == everyone for _, sites, _ in sums)
    assert [asked for asked, *_ in sums] == STEPS
    assert "asks the same sites once more" in caplog.text
    expected, *_ = run(adata, secure)
    np.testing.assert_allclose(server.references.positions, expected.references.positions, atol=1e-6)
    assert all("X_fedscgen" in client.corrected.obsm for client in clients.values())


def test_without_a_site_that_misses_the_first_question_the_others_begin_anew(adata):
    options = {site: {"labels_key": None} for site in split(adata)}  # or they would be asked who holds types, before
    server, _, clients, sums = run(adata, site="site1", step="labels", options=options)
    assert {tuple(sites) for _, sites, _ in sums} == {("site0", "site2")}
    assert server.references.n_cells.any()
    assert np.isfinite(clients["site1"].corrected.obsm["X_fedscgen"]).all(), "it is back for the correction"


@pytest.mark.parametrize(("step", "n_sums"), [("means", None), ("calibration", len(STEPS) - 1)])
def test_a_site_that_is_lost_ends_the_search_and_nothing_is_opened_without_it(adata, step, n_sums):
    """After a finished round with the landmarks as they are, before it with an error; sums never differ by a site."""
    if step == "means":
        with pytest.raises(SiteError, match=r"a site was lost .*: begin again when all sites answer \(no answer"):
            run(adata, site="site1", step=step, times=2)
        return
    server, _, clients, sums = run(adata, site="site1", step=step, times=2)
    assert {tuple(sites) for _, sites, _ in sums} == {("site0", "site1", "site2")}
    assert len(sums) == n_sums
    assert server.references.classifier.temperature == 1
    assert all("X_fedscgen" in client.corrected.obsm for client in clients.values())


class Restarting(InProcessTransport):
    """Replaces a site's client by a new one that knows no more than what is on the site's disk, before a step."""

    def __init__(self, clients, successor, step):
        super().__init__(clients)
        self.successor, self.step = successor, step

    def ask(self, messages):
        site = self.successor.site
        message = next(iter(messages.values()))
        if message.kind == LANDMARKS and message.meta["step"] == self.step:
            self.successor.resume(self._clients[site].run)
            self._clients[site] = self.successor
        yield from super().ask(messages)


@pytest.mark.parametrize("step", ["labels", "holders", "means", "calibration"])
def test_a_site_that_was_restarted_goes_on_from_what_is_on_its_disk(adata, step, tmp_path):
    aggregator = PlainAggregator()
    clients, successors = (
        [
            make_client(site, part, aggregator.contributor(site), seed=i, memory=tmp_path / site)
            for i, (site, part) in enumerate(split(adata).items())
        ]
        for _ in range(2)
    )
    server = Server(Restarting(clients, successors[0], step), aggregator, SETTINGS)
    server.run()
    expected, *_ = run(adata)
    np.testing.assert_allclose(server.references.positions, expected.references.positions, atol=1e-9)
    assert clients[0].corrected is None
    assert successors[0].corrected is not None


def test_a_site_that_was_restarted_without_a_memory_says_so(adata):
    (client, *_) = [make_client(site, part, PlainAggregator().contributor(site)) for site, part in split(adata).items()]
    with pytest.raises(ValueError, match="site 'site0' has kept nothing of run 0123: begin anew"):
        client.resume("0123")


def test_a_site_that_has_corrected_its_cells_answers_no_more_questions(plain):
    _, _, _, clients, _ = plain
    message = Message(LANDMARKS, {"task": LANDMARKS, "number": 20, "step": "calibration"})
    for client in clients.values():
        with pytest.raises(
            PolicyError, match="the run asks for 'sums near landmarks' for sum 20, and its plan for noth"
        ):
            client.handle(message.to_bytes())


def test_the_largest_min_holders_of_the_sites_counts():
    """Where one of three sites asks for three holders, a landmark that the two others hold stays closed."""
    adata = make_adata(n_cells=450)
    adata = adata[~((adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type3"))].copy()
    for wishes, least in (((2, 3, 1), 3), ((2, 2, 2), 2)):
        options = {f"site{i}": {"labels_key": None, "min_holders": wish} for i, wish in enumerate(wishes)}
        _, transport, _, sums = run(adata, options=options)
        asked = [question.open for _, question, _ in transport.answers[::3]]
        held = [(arrays["holders"], asked[i + 1]) for i, (step, _, arrays) in enumerate(sums) if step == "holders"]
        assert len(held) == 5
        assert all(chosen == np.flatnonzero(n_sites >= least).tolist() for n_sites, chosen in held)
        assert all((n_sites == 2).any() for n_sites, _ in held)


def test_with_more_holders_asked_for_than_there_are_sites_nothing_is_summed(adata, monkeypatch):
    monkeypatch.setattr(PlainAggregator, "sum", None)
    options = {site: {"labels_key": None, "min_holders": 4} for site in split(adata)}
    with pytest.raises(ValueError, match="min_holders=4 at site 'site0', but 3 sites take part"):
        run(adata, options=options)

"""A coordinator who lies, a site that does, and nobody who does: what each of them gets is a refusal by name.

Masks are honest everywhere. Three sites take part, as in docs/design/threat-model.md.
"""

from dataclasses import replace

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.federation import InProcessTransport, PolicyError, Server, SiteError, SitePolicy
from quick import make_client, propose

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import SETTINGS, SITES, Lying, agreed, ask, make_clients, run
from fedscgen.secure import AggregationError, Identity, MaskedAggregator, MaskedContributor, Sums


@pytest.mark.parametrize(
    ("kind", "meta"),
    [
        ("cell type means", {"number": 1}),
        ("model weights", {"number": 1, "round": 1}),
        ("sums near landmarks", {"number": 1, "step": "labels"}),
        ("sums before training", {"number": 2}),
    ],
)
def test_nothing_is_answered_out_of_order(kind, meta):
    server, _ = agreed()
    with pytest.raises(SiteError, match=r"the run asks for .*, and its plan for 'sums before training' for sum 1"):
        ask(server, kind, **meta)


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("genes and cell types", "00" * 60, "must propose a plan first"),
        ("settings", "00" * 60, "the group's key comes before site 'site0' has met the others"),
        ("settings", "no hex", "'group_key' is str of 6: expected text of at most 1000 hexadecimal characters"),
        ("sums before training", "00", "the group's key from site 'site0' was altered on its way"),
        ("sums before training", "00" * 60, "the group's key from site 'site0' was altered on its way"),
    ],
)
def test_a_group_key_that_is_none_or_comes_too_early_is_refused_by_name(kind, key, message):
    with pytest.raises(SiteError, match=message):
        run(kind=kind, change=lambda site, asked: Message(asked.kind, {**asked.meta, "group_key": key}, asked.arrays))


def test_nothing_is_contributed_without_the_group_key():
    def withhold(site, message):
        meta = {name: value for name, value in message.meta.items() if name != "group_key"}
        return Message(message.kind, meta, message.arrays)

    with pytest.raises(SiteError, match="site 'site1' has not got to know the other sites of this run"):
        run(kind="sums before training", change=withhold)


def test_crafted_weights_have_no_way_in():
    """Weights that single out a cell by gating: they are neither read nor believed."""

    def craft(site, message):
        crafted = {"encoder.hidden.0.weight": np.full((16, 30), 400.0)}
        return Message(message.kind, message.meta, {**message.arrays, **crafted})

    honest, _ = run()
    server, _ = run(kind="model weights", change=craft)
    for name, array in honest.weights.items():
        np.testing.assert_allclose(server.weights[name], array, atol=1e-6, err_msg=name)


class Forging(MaskedAggregator):
    """Opens the sums, and publishes others."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def sum(self, *args, **options):
        sums = super().sum(*args, **options)
        return replace(sums, opened=replace(sums.opened, words=self.change(sums.opened.words.copy())))


def scale(words):
    return words * np.uint64(2)


def shift_one(words):
    words[0] += np.uint64(1)
    return words


def swap(words):
    words[[0, 1]] = words[[1, 0]]
    return words


@pytest.mark.parametrize("change", [scale, shift_one, swap, np.zeros_like])
def test_what_is_published_must_be_the_sum(change):
    with pytest.raises(SiteError, match="what is published as sum 1 is not the sum of what the sites contributed"):
        run(aggregator=Forging(change))


def test_a_sum_of_another_number_is_not_taken_for_the_next():
    class Repeating(MaskedAggregator):
        of_training = None

        def sum(self, ask, sites, task, **options):
            sums = super().sum(ask, sites, task, **options)
            if task.kind == "model weights":
                sums = self.of_training = self.of_training or sums
            return sums

    with pytest.raises(SiteError, match="what is published as sum 4 is not the sum"):
        run(aggregator=Repeating(), settings=replace(SETTINGS, n_rounds=2))


def test_an_unprotected_sum_is_not_believed_in_a_masked_run():
    class Plain(MaskedAggregator):
        def sum(self, *args, **options):
            return Sums(**{name: getattr(super(Plain, self).sum(*args, **options), name)
                           for name in ("arrays", "weight", "n_sites")})  # fmt: skip

    with pytest.raises((SiteError, AggregationError)):
        run(aggregator=Plain())


@pytest.mark.parametrize("again", ["plan", "settings"])
def test_a_run_that_has_begun_keeps_its_plan_and_its_seeds(again):
    """With new seeds, the same question over and over would show every cell."""
    server, clients = agreed()
    assert server._perform("sums before training")
    message = propose(*SITES, aggregator="masked").to_message()
    if again == "settings":
        common = {"genes": server.genes, "labels": [], "min_holders": 2, "introductions": {}}
        message = Message("settings", {**common, "n_cells_at_most": dict.fromkeys(SITES, 64)})
    with pytest.raises(PolicyError, match=r"another run is under way|the sites have begun"):
        clients[0].handle(message.to_bytes())


def test_no_coordinator_sends_a_seed():
    _, transport = run()
    for messages in transport.sent:
        for message in messages.values():
            assert "seed" not in message.meta
    seeds = {client._seed for client in make_clients(seed=None)}
    assert len(seeds) == 3, "each site draws its own"


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-30},
        {"batch_size": 3},
        {"n_epochs": 10**9},
        {"model": {"n_hidden": 200_000}},
        {"model": {"n_hidden": 8192, "n_layers": 8192}},
    ],
)
def test_settings_under_which_training_copies_cells_or_takes_the_machine_are_refused(change):
    content = propose(*SITES, aggregator="masked").to_json()
    content["settings"] = {**content["settings"], **change}
    (client, *_) = make_clients()
    with pytest.raises(ValueError, match=r"as sites agree to no"):
        client.handle(Message("genes and cell types", content).to_bytes())


def test_the_range_of_numbers_is_no_oracle():
    """A refusal at a bound of the coordinator's choice would be one bit of a count."""

    def narrow(site, message):
        masking = {**message.meta["masking"], "max_abs": 20.5}
        return Message(message.kind, {**message.meta, "masking": masking}, message.arrays)

    with pytest.raises(SiteError, match=r"max_abs=20\.5: this site's own bound is"):
        run(kind="settings", change=narrow)


def test_a_subset_of_the_sites_is_not_summed():
    server, _ = agreed()
    with pytest.raises(SiteError, match="refuses a sum over 2 sites: its own min_sites is 3"):
        server._aggregator.sum(
            server._ask,
            ["site0", "site1"],
            Message("sums before training", {"task": "sums before training", "number": 1}),
        )


class Losing(Lying):
    """Doesn't reach a site any more once so many sums were opened."""

    lost, opened = "site2", 1

    def ask(self, messages):
        if self.server._published.n_sums >= self.opened:
            messages = {site: message for site, message in messages.items() if site != self.lost}
        yield from super().ask(messages)


@pytest.mark.parametrize("min_sites", [None, 2])
def test_a_site_that_is_lost_before_training_is_in_all_sums_or_the_run_ends(min_sites):
    """Nobody lies: each of these sums opens the same means, so that one without a site would show what it had."""
    transport = Losing(make_clients(policy=SitePolicy(min_sites=min_sites)))
    server = transport.server = Server(transport, MaskedAggregator(), replace(SETTINGS, min_sites=min_sites))
    taken = []
    take = server._take
    server._take = lambda number, message, sums: (taken.append(sums.n_sites), take(number, message, sums))
    with pytest.raises(SiteError, match=r"a site was lost before .* was open, and a sum without it would show"):
        server.run()
    assert taken == [3] * Losing.opened


def test_another_run_over_other_sites_is_refused_for_the_same_cells(tmp_path):
    run(make_clients(record=tmp_path))
    clients = make_clients(record=tmp_path)[:2]
    server = Server(InProcessTransport(clients), MaskedAggregator(), SETTINGS)
    with pytest.raises(SiteError, match=r"contributed to sums over site0, site1, site2: sums over site0, site1 would"):
        server.run()
    run(make_clients(record=tmp_path))  # over the same sites it may be repeated


def test_cells_are_asked_so_often_and_no_more(tmp_path):
    (client, *_) = clients = make_clients(record=tmp_path)
    run(clients)
    n_sums = client._record._read()[1]["n_sums"]
    assert n_sums == 2 + 1 + 1 + 8, "components, a round, holders, landmarks"
    clients = make_clients(record=tmp_path)
    clients[0]._policy = clients[0]._guard._policy = SitePolicy(max_sums=n_sums + 3)
    with pytest.raises(SiteError, match=rf"have contributed to {n_sums + 3} sums, and the site allows {n_sums + 3}"):
        run(clients)


def test_a_type_that_one_site_alone_holds_is_opened_by_nobody():
    adata_clients = make_clients()
    obs = adata_clients[1]._adata.obs
    obs["cell_type"] = obs["cell_type"].astype(str).replace({"type0": "rare diagnosis"})

    def want_it(site, message):
        return Message(message.kind, {**message.meta, "labels": ["rare diagnosis", "type1"]}, message.arrays)

    transport = Lying(adata_clients, "settings", want_it)
    server = Server(transport, MaskedAggregator(), replace(SETTINGS, reference="mean", n_rounds=0))
    server.agree()
    server._program.labels = ["rare diagnosis", "type1"]
    server._perform_all("sums before training", "holders of cell types")
    assert server._program.labels == ["type1"]
    assert server._program.task.labels == ("type1",)


def test_a_site_that_nobody_has_told_of_is_not_summed_with():
    contributors = {site: MaskedContributor(site) for site in SITES}
    known = {site: contributors[site]._identity.fingerprint for site in SITES[:2]}
    contributors["site0"]._trusted = known
    with pytest.raises(SiteError, match=r"site 'site2' is unknown here: .*fedscgen site trust"):
        run(make_clients(contributors))


def test_nobody_speaks_in_the_name_of_a_site():
    contributors = {site: MaskedContributor(site) for site in SITES}
    contributors["site0"]._trusted = {site: Identity().fingerprint for site in SITES}
    with pytest.raises(SiteError, match="somebody speaks in the name of site"):
        run(make_clients(contributors))


@pytest.mark.parametrize(
    ("kind", "name", "min_sites"),
    [("sums before training", "public mask", None), ("encrypted key shares", "mask", 2)],
)
def test_swapped_public_keys_are_refused(kind, name, min_sites):
    def swap_keys(site, message):
        arrays = {name: array.copy() for name, array in message.arrays.items()}
        arrays[name][2] = np.frombuffer(np.random.default_rng(0).bytes(32), np.uint8)
        return Message(message.kind, message.meta, arrays)

    with pytest.raises(SiteError, match=r"site 'site2' has not signed these keys|lists other public keys"):
        run(kind=kind, change=swap_keys, settings=replace(SETTINGS, min_sites=min_sites))


def test_sites_that_were_told_different_plans_do_not_meet():
    """Their signatures are of the plan, so that none can be told of other sites or settings."""

    def tell_another(site, message):
        settings = {**message.meta["settings"], "n_epochs": 2}
        return Message(message.kind, {**message.meta, "settings": settings}) if site == "site1" else message

    with pytest.raises(SiteError, match="has not signed its key for this run: it was told something else"):
        run(kind="genes and cell types", change=tell_another)


def test_sites_that_were_told_different_genes_do_not_meet():
    def tell_another(site, message):
        return (
            Message(message.kind, {**message.meta, "genes": message.meta["genes"][:-1]}) if site == "site1" else message
        )

    with pytest.raises(SiteError, match="site 'site1' has not signed these keys"):
        run(kind="settings", change=tell_another)
    with pytest.raises(SiteError, match="the group's key from site 'site0' was altered"):
        run(kind="settings", change=tell_another, settings=replace(SETTINGS, min_sites=2))


def test_without_introductions_nothing_is_contributed():
    def leave_out(site, message):
        return Message(message.kind, {**message.meta, "introductions": {}})

    with pytest.raises(SiteError, match="isn't introduced as itself"):
        run(kind="settings", change=leave_out)


def test_survivors_are_confirmed_by_signatures_where_sites_may_drop_out():
    settings = replace(SETTINGS, min_sites=2)
    clients = [make_client(client.site, client._adata, MaskedContributor(client.site)) for client in make_clients()]

    def tell_another(site, message):
        masking = dict(message.meta["masking"])
        masking["survivors"] = ["site0", "site1"] if site != "site2" else masking["survivors"]
        return Message(message.kind, {**message.meta, "masking": masking}, message.arrays)

    with pytest.raises(SiteError, match=r"was told of other sites in the sum|others than those that this site has"):
        run(clients, "confirmed sites", tell_another, settings=settings)


class Claiming(MaskedContributor):
    """A site that claims other cells than it has announced, or other weights than it has trained."""

    def __init__(self, site, weight=None, value=None):
        super().__init__(site)
        self.weight, self.value = weight, value

    def contribute(self, contribution, task):
        if task.kind == "model weights":
            arrays = contribution.arrays
            if self.value is not None:
                loss = arrays["validation_loss"]
                spoilt = {name: a for name, a in arrays.items() if "running_" not in name}
                spoilt = {name: np.full_like(np.asarray(a, np.float64), self.value) for name, a in spoilt.items()}
                arrays = {**arrays, **spoilt, "validation_loss": loss}
            weight = contribution.weight if self.weight is None else self.weight
            contribution = replace(contribution, arrays=arrays, weight=weight)
        return super().contribute(contribution, task)


@pytest.mark.parametrize("weight", [1e6, -90.0, 500.0])
def test_a_site_that_claims_other_cells_than_it_announced_ends_the_run_and_blames_nobody(weight):
    clients = make_clients({"site2": Claiming("site2", weight)})
    with pytest.raises(ValueError, match=r"the sites in a sum claim .* nobody can tell which") as refused:
        run(clients)
    assert "site0" not in str(refused.value)
    assert "site2" not in str(refused.value)


def test_weights_that_no_training_leads_to_are_refused_by_the_sites():
    clients = make_clients({"site2": Claiming("site2", value=1e4)})
    with pytest.raises(SiteError, match=r"changes the weights by .* of their norm, which sites that keep to"):
        run(clients)


def test_a_round_that_spoils_the_loss_is_rolled_back(caplog):
    contributor = Claiming("site2")
    clients = make_clients({"site2": contributor}, max_update_norm=None)

    def spoil_round_2(round_, weights):
        contributor.value = 30.0 if round_ == 1 else None

    transport = InProcessTransport(clients)
    server = Server(transport, MaskedAggregator(), replace(SETTINGS, n_rounds=4))
    server.run(on_round=spoil_round_2)
    assert "the loss has jumped from" in caplog.text
    assert "doesn't show whose" in caplog.text
    assert server.losses[3] < 10
    assert server.losses[2] > 10 * server.losses[1]

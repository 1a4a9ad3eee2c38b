"""A coordinator who leaves the order of the federation: sites that have not met, are told new terms, or asked again."""

from dataclasses import replace

import numpy as np
import pytest

from cells import make_adata
from fedscgen._types import Message
from fedscgen.federation import InProcessTransport, PolicyError, Server, SiteError, SitePolicy
from quick import make_client, propose

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import BEGIN, SETTINGS, SITES, agreed, ask, make_clients, run
from fedscgen.federation._agreement import SetUp
from fedscgen.secure import AggregationError, MaskedAggregator, MaskedContributor

GENES = [f"gene{i}" for i in range(30)]
PLAN = propose(*SITES, aggregator="masked")
TERMS = SetUp(GENES, n_cells_at_most=dict.fromkeys(SITES, 64))


def test_nothing_is_summed_by_a_site_that_was_never_introduced():
    """Without the first message it would know no other site, and the coordinator could be all of them."""
    client, *_ = make_clients()
    with pytest.raises(PolicyError, match="sites have to meet first"):
        client.handle(TERMS.to_message(plan=PLAN.to_json()).to_bytes())


def test_a_first_message_that_fails_at_the_site_leaves_no_plan_behind():
    """Of a kind that the site can't answer: what follows must not find a plan without an introduction."""
    client, *_ = make_clients(labels_key=None)
    plan = propose(*SITES, aggregator="masked", reference="mean")
    with pytest.raises(ValueError, match="needs cell types at every site"):
        client.handle(plan.to_message().to_bytes())
    with pytest.raises(PolicyError, match="must propose a plan first"):
        client.handle(TERMS.to_message().to_bytes())


def test_settings_without_introductions_are_refused_at_once():
    client, *_ = make_clients()
    client.handle(PLAN.to_message().to_bytes())
    with pytest.raises(AggregationError, match="isn't introduced as itself"):
        client.handle(TERMS.to_message().to_bytes())
    with pytest.raises(AggregationError, match="has not got to know the other sites"):
        client.handle(BEGIN.to_bytes())


@pytest.mark.parametrize("told", [slice(1, None), slice(0, 1)], ids=["all but the first", "the first"])
def test_sites_that_have_met_are_told_no_other_genes(told):
    """Genes that a site lacks count as zero in a union: told of such alone, it would leave the sum to the others."""
    clients = make_clients(policy=SitePolicy(gene_union=True))
    server, _ = agreed(clients, replace(SETTINGS, genes="union"))
    invented = replace(server._program._terms, genes=[f"invented{i}" for i in range(30)])
    for client in clients[told]:
        with pytest.raises(PolicyError, match="genes and cell types can't change any more"):
            client.handle(invented.to_message().to_bytes())


def test_keys_are_signed_for_what_was_agreed_on_since_the_plan():
    """Should a site hold other terms all the same, no other site takes its keys."""
    server, clients = agreed()
    ask(server, "sums before training", number=1)  # with which the group's key comes
    for client in clients[1:]:
        membership = client._contributor._membership
        client._contributor._membership = replace(membership, run=membership.run[:-1] + "x")
    with pytest.raises(SiteError, match="has not signed these keys"):
        ask(server, "sums before training", number=1)


@pytest.mark.parametrize("run_name", ["..", "../../other", "/tmp/other", "0" * 31, "G" * 32, ""])  # noqa: S108
def test_the_name_of_a_run_is_no_path(run_name, tmp_path):
    """Sites keep what a run needs in a folder of its name, and delete it at the end."""
    adata = make_adata()
    cells = adata[adata.obs["batch"] == "site0"].copy()
    client = make_client("site0", cells, MaskedContributor("site0"), memory=tmp_path / "out" / "runs")
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        client.handle(Message("genes and cell types", {**PLAN.to_json(), "run": run_name}).to_bytes())
    assert not list(tmp_path.iterdir())


def test_a_sum_that_no_program_can_go_on_with_does_not_end_the_run_well():
    """Published again, it must not count as the last one."""
    server, clients = agreed()
    program = clients[0]._guard.program
    program._terms.n_cells_at_most.update(site0=10**6)  # so that the sites seem to claim fewer cells than they have
    message = server._open(server._program.task).to_message()
    server._published.add(1, message)
    question = server._published.enclose({"site0": BEGIN}, None)["site0"].to_bytes()
    with pytest.raises(ValueError, match="nobody can tell which"):
        clients[0].handle(question)
    with pytest.raises(PolicyError, match="the run has ended at this site"):
        clients[0].handle(question)
    with pytest.raises(PolicyError, match="the run has ended at this site"):
        clients[0].handle(Message("final weights and references").to_bytes())


def make_lasting_clients(folder):
    adata = make_adata()
    return [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            MaskedContributor(site),
            policy=SitePolicy(),
            memory=folder / site,
        )
        for site in SITES
    ]


def propose_again(server, clients):
    """What sites that have begun answer with how far they have come."""
    for client in clients:
        answer = Message.from_bytes(client.handle(server._plan.to_message().to_bytes()))
        server._published.note(client.site, answer.meta["n_sums"])


def test_a_sum_is_begun_so_often_and_no_more_though_the_plan_is_sent_again(tmp_path):
    """With the plan a site begins as after a restart, and would train on other mini-batches each time."""
    server, clients = agreed(make_lasting_clients(tmp_path))
    server._perform_all("sums before training")
    number = server._program.task.number
    for _ in range(4):
        propose_again(server, clients)
        ask(server, "model weights", number=number, round=1)
    propose_again(server, clients)
    with pytest.raises(SiteError, match=rf"sum {number} was begun 4 times: no more of it"):
        ask(server, "model weights", number=number, round=1)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_has_ended_by_a_refusal_does_not_begin_again_with_its_plan(restarted, tmp_path):
    """Else made-up sums would cost nothing, and each refusal could tell of the site's own numbers."""
    server, clients = agreed(make_lasting_clients(tmp_path))
    opened = server._open(server._program.task)
    made_up = replace(opened.opened, words=opened.opened.words * np.uint64(2))
    server._published.add(1, replace(opened, opened=made_up).to_message())
    question = server._published.enclose({"site0": BEGIN}, None)["site0"].to_bytes()
    with pytest.raises(AggregationError, match="is not the sum of what the sites contributed"):
        clients[0].handle(question)
    client = make_lasting_clients(tmp_path)[0] if restarted else clients[0]
    with pytest.raises(PolicyError, match="the run has ended at this site: what is published as sum 1 is not the sum"):
        client.handle(server._plan.to_message().to_bytes())
    with pytest.raises(PolicyError):
        client.handle(server._program.task.to_message().to_bytes())


def test_plans_that_come_to_nothing_leave_nothing(tmp_path):
    client, *_ = make_lasting_clients(tmp_path)
    for digit in "0123":
        client.handle(Message("genes and cell types", {**PLAN.to_json(), "run": digit * 32}).to_bytes())
    assert [path.name for path in (tmp_path / "site0").iterdir()] == ["3" * 32]


def test_a_correction_takes_no_more_of_the_machine_than_a_training(tmp_path):
    client, *_ = make_clients()
    plan = propose(*SITES, genes="union", model={"n_hidden": 8192, "n_layers": 1})
    genes = [f"gene{i}" for i in range(30_000)]
    message = SetUp(genes).to_message(plan={**plan.to_json(), "workflow": "correction"})
    with pytest.raises(ValueError, match="as sites agree to no more"):
        client.handle(message.to_bytes())


def test_another_plan_may_follow_a_run_that_has_ended_by_a_refusal():
    clients = make_clients()
    server, _ = agreed(clients)
    server._perform_all("sums before training")
    for client in clients:
        client._guard._fault = "something"
    run(clients)


def test_of_two_runs_at_once_over_other_sites_one_is_summed(tmp_path):
    """Both were agreed to before any sum was counted."""
    first, second = make_clients(record=tmp_path), make_clients(record=tmp_path)[:2]
    server, _ = agreed(first)
    other = Server(InProcessTransport(second), MaskedAggregator(), SETTINGS)
    other.agree()
    server._perform("sums before training")
    with pytest.raises(SiteError, match="contributed to sums over site0, site1, site2: sums over site0, site1 would"):
        other._perform("sums before training")


def test_sums_that_the_cells_alone_decide_are_over_the_same_sites_in_all_runs(tmp_path):
    """Where sites may drop out, a run of the same sites could leave one out of its first sums, and the next not."""
    settings = replace(SETTINGS, min_sites=2)
    policy = SitePolicy(min_sites=2)
    server, _ = agreed(make_clients(record=tmp_path, policy=policy), settings)
    server.sites = ["site0", "site1"]
    server._perform("sums before training")
    again, _ = agreed(make_clients(record=tmp_path, policy=policy), settings)
    with pytest.raises(SiteError, match="contributed to sums over site0, site1: sums over site0, site1, site2 would"):
        again._perform("sums before training")
    again.sites = ["site0", "site1"]
    again._perform("sums before training")


def test_sites_that_were_told_different_openings_of_a_sum_open_no_further_one():
    """Both are sums of what the sites contributed, and would lead them to different questions."""
    settings = replace(SETTINGS, n_rounds=2)
    server, _ = agreed(settings=settings)
    server._perform_all("sums before training")
    task = server._program.task
    told, other = server._open(task), server._open(task)
    server._take(task.number, told.to_message(), told)
    server._published._opened[task.number] = told.to_message().to_buffer()
    sums, published = other.to_message(), server._published.enclose

    def fork(messages, round_):
        made = published(messages, round_)
        if f"opened sum {task.number}" in made["site1"].arrays:
            arrays = {**made["site1"].arrays, f"opened sum {task.number}": np.frombuffer(sums.to_bytes(), np.uint8)}
            made["site1"] = replace(made["site1"], arrays=arrays)
        return made

    server._published.enclose = fork
    with pytest.raises(AggregationError, match="takes part in the sum on other terms than 'site0'"):
        server._perform("model weights")


def test_survivors_are_confirmed_by_as_many_sites_as_any_sum_is_over():
    """By fewer, one site in league with the coordinator could sign two lists, and open single sites' terms."""
    settings = replace(SETTINGS, min_sites=3)
    clients = make_clients(policy=SitePolicy(min_sites=3))

    def leave_out(site, message):
        if "confirmations" not in message.arrays:  # where none may be missing, nothing is to be confirmed
            return message
        masking = {**message.meta["masking"], "confirmed": message.meta["masking"]["confirmed"][:2]}
        arrays = {**message.arrays, "confirmations": message.arrays["confirmations"][:2]}
        return Message(message.kind, {**message.meta, "masking": masking}, arrays)

    with pytest.raises(SiteError, match="confirmed by 2 sites, and 3 have to"):
        run(clients, "unmasking shares", leave_out, settings=settings)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_plan_that_is_sent_again_makes_no_site_forget_over_whom_a_sum_may_be_open(tmp_path, recorded):
    """Where two of three sites are enough, the difference of a sum over three and one over two is a site's own."""
    adata, policy = make_adata(), SitePolicy(min_sites=2)
    clients = []
    for site in SITES:
        cells, kept = adata[adata.obs["batch"] == site].copy(), tmp_path / site
        record = kept / "record.json" if recorded else None
        clients.append(make_client(site, cells, MaskedContributor(site), memory=kept, record=record, policy=policy))
    server, _ = agreed(clients, replace(SETTINGS, min_sites=2))
    task = server._program.task.to_message()
    server._aggregator.sum(server._ask, list(SITES), task, require_all=True)
    two = list(SITES)[:2]
    for site in two:
        dict(server._ask({site: server._plan.to_message()}))
    with pytest.raises(
        SiteError, match=r"components may be open over site0, site1, site2|have contributed to sums over"
    ):
        server._aggregator.sum(server._ask, two, task, require_all=True)

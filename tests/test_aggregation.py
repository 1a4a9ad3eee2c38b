"""Averages over sites, and pooled BatchNorm statistics, against numpy on the pooled data."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedscgen._types import ClientUpdate
from fedscgen.aggregation import ServerOptimizer, aggregate, from_sums, policy_of_result, to_summable, weights_for_site


def site(seed, n_cells):
    """Weights of a layer and the BatchNorm statistics of ``n_cells`` random cells, with those cells."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(rng.normal(0, 3), rng.uniform(0.5, 2), (n_cells, 5))
    weights = {
        "0.weight": rng.normal(size=(5, 2)).astype(np.float32),
        "1.running_mean": cells.mean(axis=0).astype(np.float32),
        "1.running_var": cells.var(axis=0).astype(np.float32),
    }
    return ClientUpdate(weights, n_cells), cells


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_weighted_pooling_equals_the_statistics_of_all_cells(sizes):
    updates, cells = zip(*(site(seed, size) for seed, size in enumerate(sizes)), strict=True)
    pooled = aggregate(updates, "weighted_fedavg")
    everything = np.concatenate(cells)
    np.testing.assert_allclose(pooled["1.running_mean"], everything.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(pooled["1.running_var"], everything.var(axis=0), rtol=1e-3, atol=1e-3)
    expected = np.average([u.weights["0.weight"] for u in updates], axis=0, weights=sizes)
    np.testing.assert_allclose(pooled["0.weight"], expected, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 5), st.integers(1, 50))
def test_strategies_agree_for_sites_of_equal_size(n_sites, n_cells):
    updates = [site(seed, n_cells)[0] for seed in range(n_sites)]
    plain, weighted = aggregate(updates, "fedavg"), aggregate(updates, "weighted_fedavg")
    for name, array in plain.items():
        np.testing.assert_allclose(weighted[name], array, rtol=1e-6, atol=1e-7)


@given(st.integers(0, 1000), st.integers(1, 10**6))
def test_one_site_keeps_its_weights_exactly(seed, n_cells):
    update = ClientUpdate(site(seed, 7)[0].weights, n_cells)
    for strategy in ("fedavg", "weighted_fedavg"):
        for name, array in aggregate([update], strategy).items():
            np.testing.assert_array_equal(array, update.weights[name])


def test_fedavg_ignores_cells():
    updates = [ClientUpdate({"w": np.float32([0])}, 1), ClientUpdate({"w": np.float32([1])}, 99)]
    assert aggregate(updates, "fedavg")["w"] == pytest.approx(0.5)
    assert aggregate(updates, "weighted_fedavg")["w"] == pytest.approx(0.99)


def test_averaged_statistics_are_the_means_of_the_sites_own():
    updates = [site(seed, n_cells)[0] for seed, n_cells in enumerate((5, 40))]
    for strategy, shares in (("fedavg", None), ("weighted_fedavg", (5, 40))):
        averaged = aggregate(updates, strategy, "averaged")
        for name in updates[0].weights:
            expected = np.average([update.weights[name] for update in updates], axis=0, weights=shares)
            np.testing.assert_allclose(averaged[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_statistics_to_be_averaged_are_a_sites_own_until_training_ends():
    weights, own = (
        {"w": np.full(1, n), "b.running_mean": np.full(1, n), "b.running_var": np.full(1, n)} for n in (1, 2)
    )
    assert to_summable(weights, "averaged") == weights
    loaded = weights_for_site(weights, own, "averaged")
    assert (loaded["w"], loaded["b.running_mean"], loaded["b.running_var"]) == (1, 2, 2)
    assert weights_for_site(weights, own, policy_of_result("averaged")) == weights
    assert [policy_of_result(policy) for policy in ("pooled", "local")] == ["pooled", "local"]


def test_rounded_sums_give_no_negative_variance():
    sums = {"b.running_mean": np.array([2.0]), "b.running_var": np.array([3.999999])}
    assert from_sums(sums, 1.0)["b.running_var"] == 0
    assert from_sums({"b.running_var": np.array([-1e-9])}, 1.0, batchnorm="averaged")["b.running_var"] == 0


def test_summable_form_holds_second_moments():
    weights = {"b.running_mean": np.float32([2]), "b.running_var": np.float32([3])}
    assert to_summable(weights)["b.running_var"] == 7


def test_a_running_variance_without_its_mean_is_refused_with_both_names():
    with pytest.raises(ValueError, match=r"^b\.running_var is a running variance without b\.running_mean, which"):
        to_summable({"b.running_var": np.ones(1)})


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "there is no update to aggregate"),
        ([{"w": np.zeros(2)}, {"v": np.zeros(2)}], "update 1: names differ from the model's: v, w on one side only"),
        ([{"w": np.zeros(2)}, {"w": np.zeros(3)}], r"update 1: w has shape \(3,\), expected \(2,\)"),
        ([{"w": np.zeros(2)}, {"w": np.array([0, np.inf])}], "update 1: w holds NaN or inf: training diverged"),
    ],
)
def test_updates_that_do_not_fit_are_refused_by_name(updates, message):
    with pytest.raises(ValueError, match=message):
        aggregate([ClientUpdate(weights, 1) for weights in updates])


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="unknown strategy 'median': choose one of 'fedavg', 'weighted_fedavg'"):
        aggregate([ClientUpdate({"w": np.zeros(1)}, 1)], "median")
    with pytest.raises(ValueError, match="unknown BatchNorm policy 'none': choose one of 'pooled', 'local'"):
        weights_for_site({}, {}, "none")


def test_the_average_is_taken_as_it_is_by_default():
    average = {"w": np.ones(3, np.float32)}
    assert ServerOptimizer("average").step({"w": np.zeros(3, np.float32)}, average)["w"] is average["w"]


def test_momentum_goes_on_in_the_last_direction():
    optimizer, weights = ServerOptimizer("momentum"), {"w": np.zeros(2, np.float32), "n.running_mean": np.zeros(1)}
    steps = []
    for _ in range(3):
        weights = optimizer.step(weights, {"w": weights["w"] + 1, "n.running_mean": np.full(1, 7.0)})
        steps.append(weights["w"][0])
    np.testing.assert_allclose(np.diff([0, *steps]), [1, 1.9, 2.71], rtol=1e-6)
    assert weights["n.running_mean"] == 7, "statistics are averaged, not driven on"


def test_server_adam_equals_torch_on_the_negative_change():
    rng = np.random.default_rng(0)
    first, changes = rng.normal(size=5).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.tensor(first))
    adam = torch.optim.Adam([parameter], lr=1e-2, betas=(0.9, 0.99), eps=1e-3)
    optimizer, weights = ServerOptimizer("adam"), {"w": first}
    for change in changes:
        parameter.grad = torch.tensor(-change)
        adam.step()
        weights = optimizer.step(weights, {"w": weights["w"] + change})
        assert weights["w"].dtype == np.float32
    np.testing.assert_allclose(weights["w"], parameter.detach().numpy(), atol=1e-6)


def test_an_unknown_server_optimizer_is_refused():
    with pytest.raises(ValueError, match="unknown server optimizer 'sgd'"):
        ServerOptimizer("sgd")

"""Training that begins with weights from a file: whose genes and network count, what is refused, who sees the path."""

import pickle

import numpy as np
import pytest
import torch

from cells import SMALL
from fedscgen.federation import (
    Client,
    FederationSettings,
    InitialModel,
    InProcessTransport,
    Server,
    simulate,
)
from fedscgen.model import CheckpointError, FedSCGEN, read_model
from fedscgen.secure import PlainAggregator

TRAINED = FederationSettings(n_rounds=1, n_epochs=1, seed=0, model=SMALL)
# so small a learning rate that nothing but BatchNorm's statistics moves
STILL = FederationSettings(n_rounds=1, n_epochs=1, lr=1e-7, seed=1, model=SMALL)


@pytest.fixture
def folder(adata, tmp_path):
    """The model of a federation that has all genes but the first three."""
    simulate(adata[:, 3:].copy(), settings=TRAINED, show_progress=False).model.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def published():
    """What scArches' scGen saves of a network of 30 genes, 16 hidden units and 4 latent dimensions."""
    shapes = {
        "encoder.FC.L0.weight": (16, 30), "encoder.FC.L1.weight": (16, 16),
        **{f"encoder.FC.N1.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"encoder.{name}.weight": (4, 16) for name in ("mean_encoder", "log_var_encoder")},
        **{f"encoder.{name}.bias": (4,) for name in ("mean_encoder", "log_var_encoder")},
        "decoder.FirstL.L0.weight": (16, 4), "decoder.HiddenL.L1.weight": (16, 16),
        **{f"decoder.FirstL.N0.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"decoder.HiddenL.N1.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")},
        "decoder.recon_decoder.0.weight": (30, 16), "decoder.recon_decoder.0.bias": (30,),
    }  # fmt: skip
    counters = {f"{layer}.num_batches_tracked": torch.tensor(7) for layer in ("encoder.FC.N1", "decoder.FirstL.N0")}
    return {name: 0.1 * torch.rand(shape) for name, shape in shapes.items()} | counters


def published_settings(settings):
    return FederationSettings(**{**vars(settings), "model": {**FedSCGEN.PRESETS["scarches"], **SMALL}})


def check_parameters(model, expected):
    """That all weights are the expected ones, but for BatchNorm's statistics."""
    assert model.get_weights().keys() == expected.keys()
    for name, array in model.get_weights().items():
        if ".running_" not in name:
            np.testing.assert_allclose(array, expected[name], atol=1e-6, err_msg=name)


def test_training_begins_with_a_saved_model(adata, folder):
    result = simulate(adata, settings=STILL, init_model=folder, show_progress=False)
    check_parameters(result.model, read_model(folder).weights)
    assert "sums before training" not in set(result.ledger["kind"])


def test_a_federation_works_on_the_genes_of_its_initial_model_in_their_order(adata, folder):
    result = simulate(adata[:, ::-1].copy(), settings=STILL, init_model=folder, show_progress=False)
    assert result.genes == read_model(folder).genes == list(adata.var_names[3:])
    assert list(result.corrected.var_names) == list(adata.var_names[:2:-1])


def test_training_begins_with_weights_of_the_published_network(adata, published, tmp_path):
    torch.save(published, tmp_path / "first.pt")
    settings = published_settings(STILL)
    result = simulate(adata, settings=settings, init_model=tmp_path / "first.pt", show_progress=False)
    weights = result.model.get_weights()
    for name, other in {
        "encoder.hidden.0.weight": "encoder.FC.L0.weight",
        "encoder.hidden.1.0.weight": "encoder.FC.L1.weight",
        "encoder.hidden.1.1.bias": "encoder.FC.N1.bias",
        "encoder.log_variance.weight": "encoder.log_var_encoder.weight",
        "decoder.hidden.0.0.weight": "decoder.FirstL.L0.weight",
        "decoder.hidden.1.0.weight": "decoder.HiddenL.L1.weight",
        "decoder.hidden.1.1.weight": "decoder.HiddenL.N1.weight",
        "decoder.output.bias": "decoder.recon_decoder.0.bias",
    }.items():
        np.testing.assert_allclose(weights[name], published[other].numpy(), atol=1e-6, err_msg=name)


def test_a_folder_of_scarches_says_which_genes_its_weights_are_for(adata, published, tmp_path):
    torch.save(published, tmp_path / "model_params.pt")
    genes = list(adata.var_names[::-1])
    np.savetxt(tmp_path / "var_names.csv", genes, fmt="%s")
    result = simulate(adata, settings=published_settings(STILL), init_model=tmp_path, show_progress=False)
    assert result.genes == genes


def test_a_model_whose_genes_sites_lack_is_refused_by_their_names(adata, folder):
    with pytest.raises(ValueError, match="27 genes, of which the sites don't share 2: gene28, gene29; choose a model"):
        simulate(adata[:, :28].copy(), settings=STILL, init_model=folder, show_progress=False)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"n_hidden": 8}, r"model: encoder.* has shape .*, expected .*; choose the settings of the model"),
        ({"linear_path": False}, r"model: names differ from the model's: encoder.hidden.0.bias, linear_path"),
    ],
)
def test_a_model_of_another_network_is_refused_before_anything_is_trained(adata, folder, network, message):
    settings = FederationSettings(model={**SMALL, **network})
    with pytest.raises(ValueError, match=message):
        simulate(adata, settings=settings, init_model=folder, show_progress=False)


def test_a_path_without_a_file_is_refused(adata, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"init_model=.*absent: there is no such folder or file"):
        simulate(adata, settings=STILL, init_model=tmp_path / "absent", show_progress=False)


class Trap:
    """Leaves a trace wherever it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("content", ["nothing", "text", "pickle", "no tensors"])
def test_a_file_of_anything_else_is_refused_and_not_executed(content, tmp_path):
    file, trace = tmp_path / "first.pt", tmp_path / "trace"
    if content == "no tensors":
        torch.save({"epoch": 3}, file)
    else:
        parts = {"nothing": b"", "text": b"hello", "pickle": pickle.dumps({"encoder": Trap(trace)}, 2)}
        file.write_bytes(parts[content])
    with pytest.raises(CheckpointError, match=r"first\.pt holds no named tensors, or a damaged file"):
        InitialModel.read(file)
    assert not trace.exists()


def test_no_site_gets_the_path(adata, folder):
    aggregator, sent = PlainAggregator(), []
    clients = [
        Client(site, adata[adata.obs["batch"] == site].copy(), aggregator.contributor(site))
        for site in adata.obs["batch"].cat.categories
    ]
    for client in clients:
        client.handle = lambda data, handle=client.handle: (sent.append(bytes(data)), handle(data))[1]
    with aggregator:
        Server(InProcessTransport(clients), aggregator, STILL, InitialModel.read(folder)).run()
    assert len(sent) > 12
    assert not any(str(folder.parent).encode() in data for data in sent)

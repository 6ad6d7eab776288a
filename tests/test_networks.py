"""The networks have the published shapes, and follow the number of phases."""

import numpy as np
import pytest
import torch

from xrdpipe.errors import OptionError
from xrdpipe.nn.losses import add_noise, binary_cross_entropy, multitask_cross_entropy
from xrdpipe.nn.networks import NETWORKS, PaperNetwork, SmallResNet, make_network


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_network_has_the_published_sizes():
    network = PaperNetwork().eval()
    assert parameters(network) == 11_852_998
    assert parameters(network.features) == 2_944
    lengths = []
    features = torch.zeros(1, 1, 1901)
    for layer in network.features:
        features = layer(features)
        if isinstance(layer, (torch.nn.Conv1d, torch.nn.MaxPool1d)):
            lengths.append(features.shape[-1])
    assert lengths == [946, 468, 229, 112]
    assert features.shape == (1, 3584)
    branch = [layer.out_features for layer in network.branches[0] if hasattr(layer, "out_features")]
    assert branch == [1024, 256, 64, 2]
    dropout = [layer.p for layer in network.branches[0] if isinstance(layer, torch.nn.Dropout)]
    assert dropout == [0.2, 0.2, 0.2]


def test_single_task_networks_share_nothing():
    network = make_network("single-task", 1, 3, 1901).eval()
    assert parameters(network) == 3 * parameters(PaperNetwork(phases=1))
    views = torch.rand(2, 1, 1901, requires_grad=True)
    network.log_odds(views)[:, 1].sum().backward()
    touched = [
        any(p.grad is not None and bool(p.grad.any()) for p in one.parameters())
        for one in network.networks
    ]
    assert touched == [False, True, False]
    assert network.latent(views).shape == (2, 3 * 3584)


def test_log_odds_are_those_of_the_softmax():
    network = PaperNetwork().eval()
    views = torch.rand(4, 1, 1901)
    softmax = torch.softmax(network(views), dim=2)[..., 1]
    torch.testing.assert_close(torch.sigmoid(network.log_odds(views)), softmax)


def test_small_network_is_small():
    network = SmallResNet()
    assert 300_000 < parameters(network) < 500_000


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("phases", [1, 20])
def test_networks_follow_the_number_of_phases(name, phases):
    network = make_network(name, 2, phases, 1901).eval()
    assert network.log_odds(torch.rand(3, 2, 1901)).shape == (3, phases)
    assert network.latent(torch.rand(3, 2, 1901)).ndim == 2


@pytest.mark.parametrize("points", [400, 951, 5701])
def test_networks_follow_the_grid(points):
    for name in NETWORKS:
        assert make_network(name, 1, 2, points).eval().log_odds(torch.rand(2, 1, points)).shape == (
            2,
            2,
        )


def test_small_network_keeps_positions():
    # Moving a peak must be able to change the answer: a network that averages cannot.
    torch.manual_seed(0)
    network = SmallResNet(1, 1).eval()
    views = torch.zeros(2, 1, 1901)
    views[0, 0, 500:510] = 5
    views[1, 0, 1300:1310] = 5
    odds = network.log_odds(views).detach()
    assert abs(float(odds[0] - odds[1])) > 1e-4


def test_unknown_network_and_short_grid_are_refused():
    with pytest.raises(OptionError, match="Did you mean 'small-resnet'"):
        make_network("smal-resnet", 1, 3, 1901)
    with pytest.raises(OptionError, match="at least 120 grid points"):
        make_network("paper", 1, 3, 50)


def test_cross_entropy_equals_the_published_formula():
    rng = np.random.default_rng(0)
    odds, labels = rng.normal(size=(5, 3)), rng.integers(0, 2, (5, 3))
    present = 1 / (1 + np.exp(-odds))
    truth = np.where(labels == 1, present, 1 - present)
    weight = np.where(labels == 1, 1.6, 1.0)
    expected = -(weight * np.log(truth)).sum() / 5
    found = multitask_cross_entropy(torch.tensor(odds), torch.tensor(labels), (1.0, 1.6))
    assert float(found) == pytest.approx(expected)
    plain = binary_cross_entropy(torch.tensor(odds), torch.tensor(labels))
    assert float(plain) == pytest.approx(-np.log(truth).mean())


def test_labels_that_are_not_judged_do_not_count():
    odds = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    labels = torch.tensor([[1, -1], [0, -1]])
    only = binary_cross_entropy(odds[:, :1], labels[:, :1])
    torch.testing.assert_close(binary_cross_entropy(odds, labels), only)
    torch.testing.assert_close(
        multitask_cross_entropy(odds, labels), multitask_cross_entropy(odds[:, :1], labels[:, :1])
    )


def test_noise_is_fresh_and_reproducible():
    views = torch.zeros(2, 1, 5000)
    one = add_noise(views, 0.05, torch.Generator().manual_seed(1))
    assert float(one.std()) == pytest.approx(0.05, rel=0.03)
    torch.testing.assert_close(one, add_noise(views, 0.05, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, add_noise(views, 0.05, torch.Generator().manual_seed(2)))
    assert add_noise(views, 0.0, torch.Generator()) is views

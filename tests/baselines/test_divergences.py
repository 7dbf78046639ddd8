import math

import naive
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from baselines.divergences import bernoulli_kl, elbo_weight, gaussian_kl, psp_mmd, rbf_mmd

pytestmark = pytest.mark.usefixtures("double_precision")
CLOSE = {"rtol": 1e-10, "atol": 1e-13}


def rates(shape, seed):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


def assert_same_with_gradients(actual, expected, inputs):
    torch.testing.assert_close(actual, expected, **CLOSE)
    actual_gradients = torch.autograd.grad(actual, inputs)
    expected_gradients = torch.autograd.grad(expected, inputs)
    for gradient, other in zip(actual_gradients, expected_gradients, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(gradient, other, **CLOSE)


@pytest.mark.parametrize("over_time", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 4)])
def test_psp_mmd_is_the_naive_one(shape, over_time):
    q, p = rates(shape, 0), rates(shape, 1)
    expected = naive.psp_mmd(q, p, over_time)
    assert_same_with_gradients(psp_mmd(q, p, over_time), expected, [q, p])


def test_psp_mmd_by_hand():
    # PSPs .5, .25 against 0, .5: squares .25 and .0625
    q, p = torch.tensor([[[1.0]], [[0.0]]]), torch.tensor([[[0.0]], [[1.0]]])
    assert psp_mmd(q, p, "sum").item() == pytest.approx(0.3125)
    assert psp_mmd(q, p, "mean").item() == pytest.approx(0.15625)


def test_psp_mmd_summed_is_the_mean_times_the_time_steps():
    q, p = rates((7, 3, 4), 0), rates((7, 3, 4), 1)
    ratio = psp_mmd(q, p, "sum") / psp_mmd(q, p, "mean")
    assert ratio.item() == pytest.approx(7)


def test_bernoulli_kl_is_the_naive_one():
    q, p = rates((5, 3, 4), 0), rates((5, 3, 4), 1)
    assert_same_with_gradients(bernoulli_kl(q, p), naive.bernoulli_kl(q, p), [q, p])


def test_bernoulli_kl_nears_the_exact_one_as_epsilon_vanishes():
    q, p = rates((5, 3, 4), 0).detach(), rates((5, 3, 4), 1).detach()
    bernoulli = torch.distributions.Bernoulli
    exact = kl_divergence(bernoulli(q), bernoulli(p)).sum() / 3
    assert bernoulli_kl(q, p, epsilon=1e-12).item() == pytest.approx(exact.item(), rel=1e-6)


def test_bernoulli_kl_is_finite_for_certain_outcomes():
    q, p = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert bernoulli_kl(q, p).item() == pytest.approx(2 * math.log(1.01 / 0.01))


@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (4, 16)])
def test_rbf_mmd_is_the_naive_one(shape):
    q, p = rates(shape, 0), rates(shape, 1)
    assert_same_with_gradients(rbf_mmd(q, p), naive.rbf_mmd(q, p), [q, p])


def test_rbf_mmd_by_hand():
    # two points at squared distance 4: b = 1, kernels exp(-4 / 2^i)
    q, p = torch.tensor([[0.0]]), torch.tensor([[2.0]])
    expected = 2 * 5 - 2 * sum(math.exp(-4 / 2**i) for i in range(5))
    assert rbf_mmd(q, p).item() == pytest.approx(expected)


def test_rbf_mmd_of_equal_samples_is_zero():
    q = rates((5, 3), 0)
    assert rbf_mmd(q, q.clone()).item() == pytest.approx(0, abs=1e-12)


def test_rbf_mmd_does_not_depend_on_the_unit():
    q, p = rates((5, 3), 0), rates((5, 3), 1)
    assert rbf_mmd(100 * q, 100 * p).item() == pytest.approx(rbf_mmd(q, p).item())


def test_divergences_are_zero_for_equal_processes():
    q = rates((5, 3, 4), 0)
    assert psp_mmd(q, q, "mean").item() == 0
    assert bernoulli_kl(q, q).item() == 0


def test_gaussian_kl_is_the_one_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn((4, 6), generator=generator).requires_grad_()
    log_variance = torch.randn((4, 6), generator=generator).requires_grad_()
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    expected = exact.sum(1).mean()
    assert_same_with_gradients(gaussian_kl(mean, log_variance), expected, [mean, log_variance])


def test_elbo_weight_is_one_over_the_values_of_an_image():
    assert elbo_weight((1, 32, 32)) == 1 / 1024
    assert elbo_weight((3, 64, 64)) == 1 / 12288


@pytest.mark.parametrize(
    ("image_shape", "training_images", "expected"),
    [((1, 32, 32), 60_000, 4.3), ((3, 32, 32), 50_000, 15.4), ((3, 64, 64), 162_770, 18.9)],
    ids=["mnist", "cifar10", "celeba"],
)
def test_the_official_weight_overregularises_by_the_known_factor(
    image_shape, training_images, expected
):
    official = 250 / training_images
    assert official / elbo_weight(image_shape) == pytest.approx(expected, abs=0.05)


def test_the_elbo_weight_makes_the_loss_an_elbo_at_variance_one_half():
    generator = torch.Generator().manual_seed(0)
    image, reconstruction = torch.rand((2, 3, 4, 4), generator=generator)
    log_likelihood = Normal(reconstruction, 0.5**0.5).log_prob(image).sum()
    constant = -0.5 * math.log(math.pi) * image.numel()
    loss = (image - reconstruction).square().mean()
    kl = torch.tensor(1.7)
    negative_elbo = -(log_likelihood - constant) + kl
    weighted = (loss + elbo_weight((3, 4, 4)) * kl) * image.numel()
    torch.testing.assert_close(weighted, negative_elbo)

import pytest
import torch
from torch.nn import functional as F

from lit_attr.attribution.closed_form.norm import Normalised
from lit_attr.decomposition.anatomy import Norm

WIDTH = 6


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


NORMS = {
    "RMSNorm": Norm("", randn(WIDTH), None, 0.1, centred=False),
    "LayerNorm": Norm("", randn(WIDTH), randn(WIDTH) + 1, 0.1, centred=True),
    "LayerNorm without bias": Norm("", randn(WIDTH), None, 1e-5, centred=True),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_output_and_derivative_are_those_of_torch(norm):
    def reference(x):
        if norm.centred:
            return F.layer_norm(x, (WIDTH,), norm.weight, norm.bias, norm.eps)
        return F.rms_norm(x, (WIDTH,), norm.weight, norm.eps)

    vectors, direction = randn(2, 3, WIDTH), randn(2, 3, WIDTH).flip(0)
    found = Normalised.of(norm, vectors)
    value, derivative = torch.autograd.functional.jvp(reference, vectors, direction)
    torch.testing.assert_close(found.output, value, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.jvp(direction), derivative, rtol=1e-12, atol=1e-13)
    part = found.part((slice(1, 2), slice(0, 2)))
    torch.testing.assert_close(part.jvp(direction[1:2, :2]), derivative[1:2, :2], rtol=1e-12, atol=1e-13)

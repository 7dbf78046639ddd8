import pytest
import torch
from torch.overrides import TorchFunctionMode

DRAWS = (torch.rand, torch.randn, torch.randint)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


@pytest.fixture
def device():
    return torch.device("cuda")


class _DrawsOfTheCPU(TorchFunctionMode):
    """Random draws come from a generator of the CPU, and are moved to where they were asked for."""

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function not in DRAWS:
            return function(*args, **kwargs)
        device = kwargs.pop("device", None)
        kwargs["generator"] = self.generator
        return function(*args, **kwargs).to(device)


@pytest.fixture
def same_draws():
    """A context of a seed in which the CPU and a GPU get the same random draws."""
    return _DrawsOfTheCPU


@pytest.fixture
def deterministic():
    """cuDNN adds up in the same order each time."""
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with flags:
        yield

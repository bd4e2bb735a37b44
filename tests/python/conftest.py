"""What all Python tests share: seeds, Hypothesis' settings, and that no test leaves its mode behind."""

import hypothesis
import numpy as np
import pytest

import spool

hypothesis.settings.register_profile("spool", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("spool")


@pytest.fixture(autouse=True)
def clean_state():
    """Equal random numbers for every test, and grad mode on before and after it."""
    spool.manual_seed(0)
    np.random.seed(0)
    assert spool.is_grad_enabled()
    yield
    assert spool.is_grad_enabled(), "the test left grad mode off"
    spool.synchronize()

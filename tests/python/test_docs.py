"""The examples in the documents run and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["bindings/python/COMING_FROM_PYTORCH.md"])
def test_examples_of_a_document(document):
    result = doctest.testfile(str(ROOT / document), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


MODULES = [
    "spool.autograd.drawing",
    "spool.autograd.forward_ad",
    "spool.autograd.gradcheck",
    "spool.utils.checkpoint",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name):
    importlib.import_module("spool.autograd")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0

"""The registry against what it names: functions, traits, Methods text."""

import pytest

from qsm_nipype import methods
from qsm_nipype.interfaces.base import resolve

ROWS = pytest.mark.parametrize("method", methods.METHODS, ids=lambda method: method.key)


def test_names_are_unique():
    keys = [method.key for method in methods.METHODS]
    assert len(keys) == len(set(keys))


@ROWS
def test_traits_are_the_parameters_of_the_core_function(method):
    traits = resolve(method.interface)().inputs.traits(parameter=True)
    assert set(traits) == set(method.parameters())


@ROWS
def test_no_trait_repeats_a_default(method):
    inputs = resolve(method.interface)().inputs
    assert all(not inputs.trait(name).usedefault for name in inputs.traits(parameter=True))


@ROWS
def test_every_method_has_its_sentence_and_references(method):
    from qsm_nipype.record import Step
    from qsm_nipype.report.methods_text import write_methods

    text = write_methods([Step(method.step, method.name)], version="1")
    bare = write_methods([], version="1")
    assert len(text.paragraph) > len(bare.paragraph)
    assert "was done with the method" not in text.paragraph

"""The rates by which a run chooses its precision."""

import subprocess

import pytest

from keras_distil.benchmark import matrix_products


def test_both_precisions_are_measured(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    rates = matrix_products.matrix_product_flops(32)
    assert list(rates) == ["float32", "mixed_bfloat16"]
    assert min(rates.values()) > 0


@pytest.mark.parametrize(
    ("status", "rates"), [(0, {"mixed_bfloat16": 5e9}), (-6, {})]
)
def test_with_fewer_instructions_a_process_may_end(status, rates, monkeypatch):
    """oneDNN ends the process that multiplies in a precision it lacks."""

    def run(command, **options):
        assert command[-2:] == ["mixed_bfloat16", "32"]
        return subprocess.CompletedProcess(command, status, "5e9\n", "abort")

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(subprocess, "run", run)
    found = matrix_products.matrix_product_flops(32)
    assert found.pop("float32") > 0
    assert found == rates


@pytest.mark.slow
def test_the_process_prints_a_rate(monkeypatch):
    assert matrix_products._measure_elsewhere("mixed_bfloat16", 32) > 0

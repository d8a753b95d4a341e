"""The benchmark that says where a step's time goes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import where_time_goes


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        (
            "call/while/body/_355/cond_4/else/MatMul_1:_MklMatMul",
            "",
            "products with the vocabulary",
        ),
        (
            "call/gradient_tape/MatMul_47/MatMul_1:_MklMatMul",
            "",
            "products of the encoders",
        ),
        ("call/add_33:_MklNativeFusedMatMul", "", "products of the encoders"),
        (
            "call/MatMul_38:_MklBatchMatMulV2",
            "",
            "attention: batched products, softmax",
        ),
        ("call/cast:Cast", "", "casts"),
        ("call/pad:Pad", "", "copies: transpositions, gathering, joining"),
        ("call/add:AddV2", "", "elementwise, normalisation and the rest"),
        ("multiply_add_fusion.9", "apply", "optimizer's update"),
        (
            "add_select_fusion",
            "on_logits",
            "losses on logits, between the products",
        ),
        ("Run", "", None),
        ("call/while:While", "", None),
    ],
)
def test_the_kinds_of_events(name, module, kind):
    assert where_time_goes.classify(name, module) == kind


def test_what_runs_inside_an_event_counts_once():
    # One of 100 around two of 30 and 20, the latter around one of 5; then one
    # that begins where the first ends.
    events = [
        (0, 100, "outer"),
        (10, 30, "first"),
        (50, 20, "second"),
        (55, 5, "inner"),
        (100, 7, "next"),
    ]
    found = dict(where_time_goes.own_times(events))
    assert found == {
        "outer": 50,
        "first": 30,
        "second": 15,
        "inner": 5,
        "next": 7,
    }

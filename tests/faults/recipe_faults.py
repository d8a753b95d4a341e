"""Faults in the forms of recipes and in folders of earlier runs."""

from faults.fault import Fault

_MAPS = "tests/config/test_losses_section.py"
_EARLIER = "tests/runs/test_earlier_runs.py"

FAULTS = (
    Fault(
        "losses are made in the order of the recipe",
        "make_losses",
        "[*known, *unknown]",
        "settings",
        (
            "tests/losses/test_registry.py"
            "::test_losses_come_in_the_order_of_the_table",
        ),
    ),
    Fault(
        "setting one value of the default map turns the other losses off",
        "_apply_override",
        '_DEFAULT_LOSSES.get(".".join(keys[:depth]), ())',
        "()",
        (f"{_MAPS}::test_one_setting_of_the_default_is_changed_alone",),
    ),
    Fault(
        "an earlier recipe loses the losses of which it says nothing",
        "_with_losses",
        "{x: {} for x in _LOSSES[section]} | values",
        "values",
        (f"{_MAPS}::test_an_earlier_map_is_completed",),
    ),
    Fault(
        "a task's loss of weight 0 is computed in an earlier run",
        "_with_losses",
        'if section == "finetune":',
        "if False:",
        (f"{_MAPS}::test_a_weight_of_zero_is_translated_to_what_it_did",),
    ),
    Fault(
        "the training states of an earlier baseline are not found",
        "_rename",
        '"{}", "checkpoints/{}", "logs/{}"',
        '"{}", "logs/{}"',
        (f"{_EARLIER}::test_a_stopped_run_goes_on_to_equal_weights",),
    ),
    Fault(
        "the stages of earlier metrics keep their names",
        "_translate_stages",
        "names.get(part, part)",
        "part",
        (f"{_EARLIER}::test_a_stopped_run_goes_on_to_equal_weights",),
    ),
    Fault(
        "files of an earlier run keep their names",
        "translate_run",
        "_rename(folder, names)",
        "None",
        (f"{_EARLIER}::test_a_finished_run_is_reported",),
    ),
)

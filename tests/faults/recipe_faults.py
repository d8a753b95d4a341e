"""Faults in the forms of recipes and in folders of earlier runs."""

from faults.fault import Fault

_MAPS = "tests/config/test_losses_section.py"
_EARLIER = "tests/runs/test_earlier_runs.py"
_SHIPPED = "tests/config/test_shipped.py"
_CUT = "tests/runs/test_cut_students.py"
_CLOZE = "tests/runs/test_cloze.py"
_PROSE = "tests/runs/test_prose.py"

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
        '_default_losses(".".join(keys[:depth]), node)',
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
    Fault(
        "a shipped recipe hides a file of its name",
        "find_recipe",
        "path.exists()",
        "path.exists() and given not in list_names()",
        (f"{_SHIPPED}::test_a_name_is_found_where_nothing_has_it_as_path",),
    ),
    Fault(
        "a missing student is told when its run's folder is made",
        "_opened",
        "given_files.check_given_files(recipe)",
        "pass",
        ("tests/cli/test_recipes_command.py",),
    ),
    Fault(
        "a key elsewhere hides the section's own",
        "describe_unknown_key",
        "[here] if",
        "[] if",
        ("tests/config/test_schema.py::test_unknown_key_names_the_nearest",),
    ),
    Fault(
        "a task's own key cuts no student",
        "FineTuneSection.cuts_student",
        "own is not None and own.cut_student",
        "False",
        (f"{_CUT}::test_a_task_may_cut_its_students_alone",),
    ),
    Fault(
        "vectors of prose stay in the order of its lengths",
        "_embed",
        "return vectors[np.argsort(order)]",
        "return vectors",
        (f"{_PROSE}::test_vectors_stay_with_their_sentences",),
    ),
    Fault(
        "a question has its answer in it",
        "_question",
        "words[end : end + count - left]",
        "words[begin : end + count - left]",
        (f"{_CLOZE}::test_a_part_of_the_sentence_is_asked_for",),
    ),
    Fault(
        "a file is asked for that no task reads",
        "given_students",
        "and not recipe.makes(row)",
        "",
        (f"{_CUT}::test_no_file_is_needed_where_all_tasks_cut",),
    ),
    Fault(
        "a row has students of two sizes",
        "load_given_students",
        "check_cut_sizes(run.recipe, source)",
        "pass",
        (f"{_CUT}::test_students_of_all_tasks_have_one_size",),
    ),
)

"""All faults."""

from faults import (
    answer_faults,
    any_model_faults,
    data_faults,
    embedding_export_faults,
    embedding_faults,
    embedding_run_faults,
    fit_faults,
    layer_loss_faults,
    mended_faults,
    own_task_faults,
    recipe_faults,
    task_faults,
    teacher_faults,
    text_faults,
    tokenizer_faults,
    training_faults,
    wiring_faults,
)
from faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *wiring_faults.FAULTS,
    *training_faults.FAULTS,
    *data_faults.FAULTS,
    *mended_faults.FAULTS,
    *fit_faults.FAULTS,
    *recipe_faults.FAULTS,
    *task_faults.FAULTS,
    *tokenizer_faults.FAULTS,
    *any_model_faults.FAULTS,
    *layer_loss_faults.FAULTS,
    *text_faults.FAULTS,
    *embedding_faults.FAULTS,
    *embedding_run_faults.FAULTS,
    *embedding_export_faults.FAULTS,
    *teacher_faults.FAULTS,
    *own_task_faults.FAULTS,
    *answer_faults.FAULTS,
)

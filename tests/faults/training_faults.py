"""Faults in losses, objectives, the Distiller and its callbacks."""

from faults.fault import Fault

_CACHED_TASKS = "tests/teachers/tasks/test_cached_task_teacher.py"
_LOSSES = ("tests/losses/test_losses.py",)
_TASK = ("tests/training/objectives/test_task_objective.py",)
_MASKED = ("tests/training/objectives/test_masked_lm_objective.py",)

FAULTS = (
    # === Losses ===
    Fault(
        "the KL divergence lacks the squared temperature",
        "soft_target_kl_divergence.divergence",
        "temperature**2 * divergence_of_softmaxes(p, q, ratio)",
        "divergence_of_softmaxes(p, q, ratio)",
        _LOSSES,
    ),
    Fault(
        "the KL divergence's gradient lacks the temperature",
        "soft_target_kl_divergence.divergence.gradient",
        "divisor * (q - p)",
        "q - p",
        _LOSSES,
    ),
    Fault(
        "teacher and student are swapped in the KL divergence",
        "soft_target_kl_divergence.divergence",
        "ratio = (teacher - student) - (teacher_normaliser - "
        "student_normaliser)",
        "p, q = q, p; ratio = (student - teacher) - (student_normaliser - "
        "teacher_normaliser)",
        _LOSSES,
    ),
    Fault(
        "values of weight 0 count if they are not finite",
        "weighted_sum",
        "ops.where(sample_weight > 0.0, values * sample_weight, 0.0)",
        "values * sample_weight",
        _LOSSES,
    ),
    Fault(
        "a mean counts what has no weight",
        "weighted_mean",
        "ops.sum(sample_weight)",
        "ops.sum(ops.ones_like(sample_weight))",
        _LOSSES,
    ),
    Fault(
        "the cosine is not normalised",
        "unit",
        "vectors * ops.rsqrt(ops.maximum(squared_norm, _SQUARED_NORM_FLOOR))",
        "vectors",
        _LOSSES,
    ),
    Fault(
        "a regression learns the absolute error",
        "mean_squared_error",
        "keras.losses.mean_squared_error",
        "keras.losses.mean_absolute_error",
        ("tests/losses/test_label_losses.py",),
    ),
    Fault(
        "the tail of a cached teacher is left out",
        "top_soft_target_kl_divergence.divergence",
        "total += rest",
        "total += 0.0",
        ("tests/losses/test_top_logits.py",),
    ),
    Fault(
        "examples get each other's outputs from a cache",
        "CachedTaskTeacher.reader.outputs",
        "tf.gather(before, numbers) + rows",
        "(tf.gather(before, numbers) + rows)[::-1]",
        (f"{_CACHED_TASKS}::test_batches_carry_what_the_teacher_says",),
    ),
    Fault(
        "examples without labels get the outputs of labelled ones",
        "CachedTaskTeacher.reader.outputs",
        "tf.gather(before, numbers) + rows",
        "rows",
        (f"{_CACHED_TASKS}::test_a_mixture_is_learned_from",),
    ),
    Fault(
        "outputs of a task are kept in half precision",
        "record_layout",
        'Field(OUTPUTS, "float32", (num_outputs,), per_token)',
        'Field(OUTPUTS, "float16", (num_outputs,), per_token)',
        (
            f"{_CACHED_TASKS}::test_losses_on_outputs_are_those_of_the_live_"
            "teacher",
        ),
    ),
    Fault(
        "records of a shard are in the order of their lengths",
        "_Job._records",
        "records[place] = record",
        "records[list(by_length).index(place)] = record",
        (f"{_CACHED_TASKS}::test_batches_carry_what_the_teacher_says",),
    ),
    Fault(
        "a shard that was damaged is taken as it is",
        "_Job._done",
        "return entry if whole else None",
        "return entry",
        (
            "tests/teachers/tasks/test_task_cache_making.py"
            "::test_a_pass_continues_at_the_shard",
        ),
    ),
    Fault(
        "the confidence moves the temperature the wrong way",
        "SoftTargetKLDivergence.token_temperature",
        "mean - found",
        "found - mean",
        ("tests/losses/test_confidence_temperature.py",),
    ),
    Fault(
        "the running mean of the confidence stays",
        "SoftTargetKLDivergence.observe",
        "(1 - _MOMENTUM) * mean",
        "(1 - _MOMENTUM) * before",
        ("tests/losses/test_confidence_temperature.py",),
    ),
    Fault(
        "only the last chunk's kernel gradient is kept",
        "chunked_losses.body",
        'carry["kernel"] += tf.cast(gradients.kernel, tf.float32)',
        'carry["kernel"] = tf.cast(gradients.kernel, tf.float32)',
        ("tests/losses/test_chunked.py::test_equals_all_logits_at_once",),
    ),
    Fault(
        "products by XLA leave the teacher's rows unfilled",
        "_with_filled_features",
        "for x in (rows.student, *rows.teachers)",
        "for x in (rows.student, *rows.teachers[:0])",
        ("tests/losses/test_chunked.py::test_equals_all_logits_at_once",),
    ),
    Fault(
        "a training that goes on compiles what is fastest by then",
        "Distiller.keep_jit_compile",
        "if not chooses or jit_compile == self.jit_compiled:",
        "if True:",
        (
            "tests/training/test_compilation.py"
            "::test_a_training_that_is_continued_keeps_it",
        ),
    ),
    Fault(
        "the slower products are taken",
        "VocabularyTimes.choice",
        "self.between >= _CLEAR_GAIN * self.products",
        "self.between < _CLEAR_GAIN * self.products",
        ("tests/training/test_compilation.py",),
    ),
    Fault(
        "a run from before the choice compiles what is fastest now",
        "settle_jit_compile",
        "known = True if begun else trainer.jit_compiled",
        "known = trainer.jit_compiled",
        ("tests/runs/test_settled.py",),
    ),
    Fault(
        "accuracy counts all positions",
        "_argmax_metrics",
        "tf.reduce_sum(correct * chunk.metric_weight)",
        "tf.reduce_sum(correct)",
        ("tests/losses/test_chunked.py::test_metrics_by_hand",),
    ),
    # === Objectives ===
    Fault(
        "a task's teacher runs in training mode",
        "EncoderObjective._teacher_states",
        "training=False",
        "training=True",
        (
            "tests/training/objectives/test_task_objective.py::test_the_teacher_runs_without_dropout",
        ),
    ),
    Fault(
        "dropout before the output is never active",
        "task_outputs",
        "model.output_dropout(features, training=training)",
        "model.output_dropout(features, training=False)",
        (
            "tests/training/objectives/test_task_objective.py::test_dropout_before_the_output_is_for_training_alone",
        ),
    ),
    Fault(
        "a task's teacher drops some of what its head reads",
        "TaskObjective._read_teachers",
        "teacher, states[LAST], training=False",
        "teacher, states[LAST], training=True",
        (
            "tests/training/objectives/test_task_objective.py::test_the_teacher_runs_without_dropout",
        ),
    ),
    Fault(
        "the head of a task's student is trained without dropout",
        "TaskObjective.compute_gradients",
        "self.student, student_states[LAST], training=training",
        "self.student, student_states[LAST], training=False",
        (
            "tests/training/objectives/test_task_objective.py::test_the_student_trains_with_dropout",
        ),
    ),
    Fault(
        "the student of a task runs without dropout",
        "TaskObjective.compute_gradients",
        "self._student_states(batch, training=training)",
        "self._student_states(batch, training=False)",
        (
            "tests/training/objectives/test_task_objective.py::test_the_student_trains_with_dropout",
        ),
    ),
    Fault(
        "the student of masked-LM runs without dropout",
        "MaskedLMObjective.compute_gradients",
        "self._student_states(batch, training=training)",
        "self._student_states(batch, training=False)",
        (
            "tests/training/test_distiller.py::test_the_student_trains_with_dropout",
        ),
    ),
    Fault(
        "the teacher of masked-LM runs in training mode",
        "EncoderObjective._teacher_states",
        "training=False",
        "training=True",
        (
            "tests/training/test_distiller.py::test_the_teacher_runs_in_inference_mode",
        ),
    ),
    Fault(
        "gradient norms are compared under different dropout",
        "GradientNorms.measure",
        "assign_all(random, kept)\nnorms[chosen.name] = float(self._norm())",
        "norms[chosen.name] = float(self._norm())",
        ("tests/training/objectives/test_gradient_norms.py",),
    ),
    Fault(
        "a span may be answered from the padding",
        "TaskObjective._rows.logits",
        "tf.where(real[:, :, None], outputs, functional.NEVER)",
        "outputs",
        (
            "tests/training/objectives/test_task_objective.py::test_logs_are_those_of_numpy",
        ),
    ),
    Fault(
        "a span's end is its start",
        "TaskObjective._rows",
        "tf.concat([batch.targets[:, 0], batch.targets[:, 1]], axis=0)",
        "tf.concat([batch.targets[:, 0], batch.targets[:, 0]], axis=0)",
        (
            "tests/training/objectives/test_task_objective.py::test_logs_are_those_of_numpy",
        ),
    ),
    Fault(
        "every micro-batch is the first",
        "MaskedLMBatch.part",
        "start, stop = index * size // parts, (index + 1) * size // parts",
        "start, stop = 0, size // parts",
        (
            "tests/training/test_distiller.py::test_micro_batches_equal_the_whole_batch",
        ),
    ),
    Fault(
        "soft targets count where masked, whatever is asked",
        "MaskedLMObjective.denominator_of",
        "return loss.counts",
        'return "masked"',
        (
            "tests/training/objectives/test_masked_lm_objective.py::test_equals_the_step_written_out",
        ),
    ),
    Fault(
        "a layer's states are those of the layer before",
        "hidden_states",
        "packed[index] = states",
        "packed[index + 1] = states",
        ("tests/training/objectives/test_layer_pairs.py",),
    ),
    Fault(
        "a loss is the sum over its pairs",
        "HiddenStateLosses.add_up",
        "tf.add_n(parts) / len(parts)",
        "tf.add_n(parts)",
        ("tests/training/objectives/test_layer_pairs.py",),
    ),
    Fault(
        "uniform pairs begin with the teacher's first layer",
        "_uniform",
        "(i + 1) * every - 1",
        "i * every",
        ("tests/losses/test_layers.py",),
    ),
    Fault(
        "the decoder's gradient is lost",
        "MaskedLMObjective._gradients",
        "id(embeddings): vocabulary.kernel_gradient",
        "id(embeddings): 0.0 * vocabulary.kernel_gradient",
        (
            "tests/training/objectives/test_masked_lm_objective.py::test_equals_the_step_written_out",
        ),
    ),
    # === The step ===
    Fault(
        "gradients are not clipped",
        "ReplicatedModel._update",
        "factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)",
        "factor *= 1.0",
        (
            "tests/training/test_distiller.py::test_a_step_equals_the_one_written_out",
        ),
    ),
    Fault(
        "schedules are a step late",
        "Distiller.train_step",
        "schedule(self.optimizer.iterations)",
        "schedule(self.optimizer.iterations + 1)",
        (
            "tests/training/test_scheduled_values.py::test_schedules_are_exact_at_every_step",
        ),
    ),
    Fault(
        "the total leaves out the weights of losses",
        "RunningMetrics._weighted_total",
        'tf.convert_to_tensor(loss.weight) * values[f"{loss.name}_loss"]',
        'values[f"{loss.name}_loss"]',
        ("tests/training/test_distiller.py::test_logs_of_fit_and_evaluate",),
    ),
    Fault(
        "a loss that is not finite is applied",
        "RunningMetrics._check_finite",
        'tf.math.is_finite(values["loss"] + values["gradient_norm"])',
        "tf.constant(True)",
        (
            "tests/training/test_not_finite.py::test_a_nan_weight_stops_training",
        ),
    ),
    Fault(
        "means of an epoch count batches alike",
        "RunningMetrics._update_metrics",
        "sample_weight=denominators[denominator]",
        "sample_weight=1.0",
        ("tests/training/test_distiller.py::test_logs_of_fit_and_evaluate",),
    ),
    Fault(
        "an optimizer that clips is accepted",
        "_check_settings",
        '"clipnorm", "clipvalue"',
        '"clipvalue"',
        ("tests/training/test_refusals.py::test_wrong_optimizers",),
    ),
    Fault(
        "an optimizer that scales is accepted",
        "_check_settings",
        'if getattr(optimizer, "loss_scale_factor", None) is not None:',
        "if False:",
        ("tests/training/test_optimizer_checks.py",),
    ),
    Fault(
        "an optimizer with its own apply is accepted",
        "_is_of_keras",
        'owner.__module__.startswith("keras.") and',
        "",
        ("tests/training/test_optimizer_checks.py",),
    ),
    Fault(
        "an optimizer of other variables is accepted",
        "check_known_variables",
        "if unknown:",
        "if False:",
        ("tests/training/test_optimizer_checks.py",),
    ),
    Fault(
        "quantised kernels are read without their scales",
        "_unknown_in_layer",
        "if is_quantized(layer):",
        "if False:",
        ("tests/models/test_quantized_models.py",),
    ),
    Fault(
        "a quantised decoder is read as a plain one",
        "has_plain_decoder",
        "and not is_quantized(embedding)",
        "",
        ("tests/models/test_quantized_models.py",),
    ),
    Fault(
        "a replaced method is passed over",
        "is_patched",
        "return replaced or",
        "return",
        ("tests/models/test_supported.py",),
    ),
    Fault(
        "a regulariser is passed over",
        "_check_own_losses",
        "if owners:",
        "if False:",
        ("tests/training/test_models_for_training.py",),
    ),
    Fault(
        "a student with nothing trainable is accepted",
        "check_trainable",
        "if not any(",
        "if False and not any(",
        ("tests/training/test_models_for_training.py",),
    ),
    Fault(
        "low-rank embeddings lack the decoder's gradient",
        "MaskedLMObjective._gradients",
        "and table.lora_enabled",
        "and False",
        ("tests/training/test_optimizer_checks.py",),
    ),
    Fault(
        "low-rank changes are left out of a copy",
        "_add_change",
        "+ scale * change",
        "",
        ("tests/models/test_low_rank_changes.py",),
    ),
    Fault(
        "a ramp jumps to its end",
        "_Ramp._progress",
        'ops.cast(step, "float32") / self.steps',
        '0.0 * ops.cast(step, "float32") + 1.0',
        ("tests/test_schedules.py",),
    ),
    Fault(
        "a warm-up eats a part of what follows",
        "Warmup.__call__",
        "ops.maximum(step - self.steps, 0.0)",
        "step",
        ("tests/test_schedules.py",),
    ),
    Fault(
        "a piecewise schedule turns a step late",
        "Piecewise.__call__",
        "step < boundary",
        "step <= boundary",
        ("tests/test_schedules.py",),
    ),
    # === The encoder ===
    Fault(
        "attention sees the padding",
        "_Packing.__init__",
        "tf.where(real, 0.0, _NEVER)",
        "tf.where(real, 0.0, 0.0)",
        (
            "tests/models/test_encoder_pass.py::test_it_computes_what_the_layers_compute",
        ),
    ),
    Fault(
        "attention is not scaled",
        "_attention",
        "query *= tf.cast(1.0 / math.sqrt(size), query.dtype)",
        "query *= 1",
        (
            "tests/models/test_encoder_pass.py::test_it_computes_what_the_layers_compute",
        ),
    ),
    Fault(
        "segments are not embedded",
        "_embedded",
        'states + embeddings.segments(features["segment_ids"])',
        'states + 0.0 * embeddings.segments(features["segment_ids"])',
        (
            "tests/models/test_encoder_pass.py::test_it_computes_what_the_layers_compute",
        ),
    ),
    Fault(
        "dropout after attention is never active",
        "_transformer_layer",
        "layer.attention_dropout(attended, training=training)",
        "layer.attention_dropout(attended, training=False)",
        (
            "tests/models/test_encoder_pass.py::test_dropout_is_active_in_training_alone",
        ),
    ),
    # === Callbacks ===
    Fault(
        "the best epoch is the last",
        "BestEpoch.on_epoch_end",
        "if self.best_epoch == len(self.scores) - 1:",
        "if True:",
        ("tests/callbacks/test_best_epoch.py",),
    ),
    Fault(
        "patience is an epoch longer",
        "BestEpoch._is_out_of_patience",
        "since >= self.patience",
        "since > self.patience",
        ("tests/callbacks/test_best_epoch.py",),
    ),
    Fault(
        "a checkpoint is kept whenever it is worse",
        "StudentCheckpoint._has_improved",
        'value < self.best if self.mode == "min" else value > self.best',
        'value > self.best if self.mode == "min" else value < self.best',
        (
            "tests/callbacks/test_recording.py::test_only_an_improved_student_is_saved",
        ),
    ),
    Fault(
        "balanced weights go away from their ratios",
        "GradientBalancer._balance",
        "self.ratios[n] / max(norms[n], 1e-12)",
        "self.ratios[n] * max(norms[n], 1e-12)",
        (
            "tests/callbacks/test_gradient_balancer.py::test_weighted_norms_get_the_ratios",
        ),
    ),
    # === Continuing a run ===
    Fault(
        "a training goes on without its optimizer",
        "_list_variables",
        "variables += model.optimizer.variables",
        "variables += [type(v)(v.numpy()) for v in model.optimizer.variables]",
        ("tests/training/test_resume.py::test_resumed_equals_uninterrupted",),
    ),
    Fault(
        "a training goes on at the stream's beginning",
        "_StreamSource.enter",
        "step = position.batches",
        "step = 0",
        ("tests/training/test_resume.py::test_resumed_equals_uninterrupted",),
    ),
    Fault(
        "a finite dataset begins again in mid-epoch",
        "_FiniteSource.enter",
        "self._dataset.skip(step) if step else self._dataset",
        "self._dataset",
        (
            "tests/training/test_sources.py"
            "::test_a_finite_dataset_is_entered_by_skipping",
        ),
    ),
    Fault(
        "a pass of several epochs begins where it was entered",
        "_last_epoch",
        "if source.length is None or not done:",
        "if True:",
        ("tests/training/test_sources.py::test_a_pass_may_be_several_epochs",),
    ),
    Fault(
        "data that is shuffled anew is continued",
        "check_order",
        "_check_shuffling(*shuffling)",
        "pass",
        ("tests/training/test_passes.py",),
    ),
    Fault(
        "metrics of an interrupted epoch start anew",
        "TrainingState.on_epoch_begin",
        "_assign(_list_metrics(self.model), self._snapshot.tensors)",
        "pass",
        ("tests/training/test_resume.py::test_resumed_equals_uninterrupted",),
    ),
    Fault(
        "a damaged state is read",
        "_read_body",
        "if disk.file_sha256(folder / name) != digest:",
        "if False:",
        ("tests/training/test_snapshots.py",),
    ),
    Fault(
        "the oldest states are kept",
        "keep_newest",
        "list(_folders(directory))[keep:]",
        "list(_folders(directory))[:-keep]",
        ("tests/training/test_snapshots.py",),
    ),
)

"""The schema of a recipe: one class for each section of the YAML file.

The classes hold values and check them; they build nothing. A check across keys
is a validator of the later key that reads the earlier ones, and is skipped if
one of those is itself invalid: this way all errors of a recipe are found in one
pass, each at the key to change. This module has the whole recipe and the checks
across its sections.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from keras_distil.config.data_section import DataSection
from keras_distil.config.distill_section import DistillSection
from keras_distil.config.embedding_checks import (
    check_data,
    check_evaluation,
    check_models,
)
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.config.model_sections import StudentSection, TeacherSection
from keras_distil.config.output_sections import (
    BenchmarkSection,
    EvaluateSection,
    ExportSection,
)
from keras_distil.config.search_section import (
    EMBEDDING_OBJECTIVES,
    HELD_OUT_OBJECTIVES,
    SearchSection,
    check_space,
)
from keras_distil.utils.section import Count, Positive, Section

_CUT_ROWS = ("teacher", "student", "baseline", "ngrams")


class Recipe(Section):
    """A whole recipe.

    With `precision: auto` a run takes the precision in which its device
    multiplies matrices faster. `minutes` is the duration of the whole run, in
    place of the student's number of updates; `distill.minutes` is that of its
    training alone. `checkpoint_steps` is the number of updates between two
    training states, from which an interrupted run continues.

    A `distill` without `student` trains a student of the default shape. Without
    `distill`, a `student` without `source` is cut, for each task and seed, from
    the teacher that was fine-tuned on it.
    """

    name: Annotated[str, Field(max_length=100)]
    # Seeds of TensorFlow's stateless random operations are int32.
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "float32"
    minutes: Positive | None = None
    checkpoint_steps: Count = 500
    teacher: TeacherSection
    student: StudentSection | None = None
    data: DataSection = DataSection()
    distill: Annotated[DistillSection | None, Field(validate_default=True)] = (
        None
    )
    finetune: Annotated[
        FineTuneSection | None, Field(validate_default=True)
    ] = None
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection | None = None
    benchmark: BenchmarkSection | None = None
    search: SearchSection | None = None

    def cuts(self, row: str, task: str) -> bool:
        """Whether a row begins as layers of a task's fine-tuned teacher."""
        if self.teacher.predictions is not None:
            return False
        return self._makes(row, task)

    def makes(self, row: str) -> bool:
        """Whether a row is made of teachers on all tasks, of no other model."""
        tasks = self.finetune.task_names if self.finetune else []
        return bool(tasks) and all(self._makes(row, task) for task in tasks)

    def _makes(self, row: str, task: str) -> bool:
        if self.student is None or row not in ("student", "baseline"):
            return False
        if self.finetune is not None and self.finetune.cuts_student(task):
            return True
        is_given = self.student.baseline_source is not None
        return _cuts_students(self.distill, self.student) and not (
            row == "baseline" and is_given
        )

    @model_validator(mode="before")
    @classmethod
    def _default_student(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("distill") is not None:
            if values.get("student") is None:
                return {**values, "student": {}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _default_rows(cls, values: Any) -> Any:
        """Adds n-grams to the rows of a recipe for a task of one's own."""
        if not isinstance(values, dict) or values.get("distill") is not None:
            return values
        student, finetune = values.get("student"), values.get("finetune")
        if not (isinstance(student, dict) and isinstance(finetune, dict)):
            return values
        if student.get("source") is not None or "rows" in finetune:
            return values
        return {**values, "finetune": {**finetune, "rows": list(_CUT_ROWS)}}

    @model_validator(mode="before")
    @classmethod
    def _default_losses(cls, values: Any) -> Any:
        """Leaves losses on states out where there are predictions alone."""
        if not isinstance(values, dict):
            return values
        teacher, finetune = values.get("teacher"), values.get("finetune")
        if not (isinstance(teacher, dict) and isinstance(finetune, dict)):
            return values
        if teacher.get("predictions") is None or "losses" in finetune:
            return values
        if finetune.get("stages") is not None:
            return values
        losses: dict[str, Any] = {"label": {}, "soft_target": {}}
        return {**values, "finetune": {**finetune, "losses": losses}}

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if re.fullmatch(r"[a-z0-9_-]+", name):
            return name
        near = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_")
        raise ValueError(
            "may hold lower-case letters (a to z), digits, `_` and `-` only"
            f"{f', such as {near}' if near else ''}. Received: {name!r}."
        )

    @field_validator("precision", mode="before")
    @classmethod
    def _no_float16(cls, precision: Any) -> Any:
        if precision == "mixed_float16":
            raise ValueError(
                "needs loss scaling, which is not supported; use "
                "mixed_bfloat16. Received: 'mixed_float16'."
            )
        return precision

    @field_validator("distill")
    @classmethod
    def _distills_from_text(
        cls, distill: DistillSection | None, info: ValidationInfo
    ) -> DistillSection | None:
        # Missing if the section itself is invalid.
        check_models(
            distill, info.data.get("teacher"), info.data.get("student")
        )
        if "data" in info.data:
            check_data(distill, info.data["data"])
        if distill is None:
            teacher = info.data.get("teacher")
            if teacher is not None and teacher.cache is not None:
                raise ValueError(
                    "this section is required with `teacher.cache`, which it "
                    "reads; add it, or remove `teacher.cache`."
                )
            return None
        _check_sources(info)
        # Missing if the key itself is invalid.
        if "minutes" in info.data:
            _check_duration(distill, info.data["minutes"])
        teacher = info.data.get("teacher")
        if teacher is not None and teacher.cache is not None:
            if distill.balance is not None:
                raise ValueError(
                    "`balance` needs the teacher itself; remove it, or "
                    "`teacher.cache`."
                )
            for name, settings in distill.losses.by_name.items():
                setting = settings.needs_live_teacher
                if setting is not None:
                    key = ".".join(["losses", name, *filter(None, [setting])])
                    raise ValueError(
                        f"`{key}` needs the teacher itself; remove it, or "
                        "`teacher.cache`."
                    )
        student = info.data.get("student")
        if student is not None and student.source is not None:
            raise ValueError(
                "would train a student that `student.source` says is "
                "distilled already; remove one of the two."
            )
        return distill

    @field_validator("finetune")
    @classmethod
    def _something_to_train(
        cls, finetune: FineTuneSection | None, info: ValidationInfo
    ) -> FineTuneSection | None:
        # Missing if the section itself is invalid.
        if "distill" not in info.data or "teacher" not in info.data:
            return finetune
        distill, student = info.data["distill"], info.data.get("student")
        minutes = info.data.get("minutes")
        if minutes is not None and (finetune is not None or distill is None):
            raise ValueError(
                "`minutes` of the whole recipe is for one that only distils "
                "from text: how long tasks take is not known before. Remove "
                "it, or set `distill.minutes`."
            )
        if info.data["teacher"].is_given:
            _check_given_teacher(info.data["teacher"], distill, finetune)
        if finetune is not None:
            if distill is not None and distill.embeds:
                raise ValueError(
                    "tasks take a student of masked language modelling: remove "
                    f"this section, or `distill.task: {distill.task}`."
                )
            _check_models(finetune, distill, student)
        elif distill is None and student is not None:
            raise ValueError(
                "this section or `distill` is required with a `student`, "
                "which it trains; add it, or remove `student`."
            )
        elif distill is None and info.data["teacher"].train is None:
            raise ValueError(
                "this section or `distill` is required, unless "
                "`teacher.train` is given: this recipe would train nothing."
            )
        if info.data["teacher"].train is not None:
            _check_sources(info)
        return finetune

    @field_validator("evaluate")
    @classmethod
    def _measures_what_there_is(
        cls, evaluate: EvaluateSection, info: ValidationInfo
    ) -> EvaluateSection:
        # Missing if the section itself is invalid.
        if "distill" in info.data:
            check_evaluation(info.data["distill"], evaluate)
        return evaluate

    @field_validator("export")
    @classmethod
    def _a_student_is_exported(
        cls, export: ExportSection | None, info: ValidationInfo
    ) -> ExportSection | None:
        # Missing if a section itself is invalid.
        if export is None or not {"distill", "finetune"} <= set(info.data):
            return export
        finetune = info.data["finetune"]
        if info.data["distill"] is None and (
            finetune is None or "student" not in finetune.rows
        ):
            raise ValueError(
                "there is no student to export: add `distill`, or the row "
                "`student` to `finetune.rows`."
            )
        return export

    @field_validator("search")
    @classmethod
    def _something_is_searched(
        cls, search: SearchSection | None, info: ValidationInfo
    ) -> SearchSection | None:
        # Missing if a section itself is invalid.
        needed = {"teacher", "student", "distill", "finetune"}
        if search is None or not needed <= set(info.data):
            return search
        if info.data["distill"] is None:
            raise ValueError("needs `distill`, whose values it searches.")
        minutes = (info.data["distill"].minutes, info.data.get("minutes"))
        if minutes != (None, None):
            raise ValueError(
                "needs `distill.steps` or `distill.epochs` in place of "
                "`minutes`: all trials train for the same number of updates."
            )
        if info.data["teacher"].cache is not None:
            raise ValueError(
                "needs the teacher itself, whose kept outputs fit one setting; "
                "remove `teacher.cache`."
            )
        finetune = info.data["finetune"]
        tasks = finetune.task_names if finetune else []
        held_out = HELD_OUT_OBJECTIVES
        if info.data["distill"].embeds:
            held_out = EMBEDDING_OBJECTIVES
        computed = [*held_out, *tasks]
        if search.objective not in computed:
            raise ValueError(
                "`objective` must be what this recipe computes: "
                f"{', '.join(computed)}. Received: {search.objective!r}."
            )
        check_space(
            search.space, {x: info.data[x] for x in ("student", "distill")}
        )
        return search


def _check_duration(distill: DistillSection, minutes: float | None) -> None:
    """Raises ValueError unless something says how long to train, once."""
    if distill.duration is None and minutes is None:
        raise ValueError(
            "set one of `steps`, `epochs` and `minutes` here, or `minutes` of "
            "the whole recipe. Received: none of them."
        )
    if distill.duration is not None and minutes is not None:
        raise ValueError(
            f"remove `{distill.duration}`, or the `minutes` of the whole "
            "recipe, which are in place of it."
        )


def _check_sources(info: ValidationInfo) -> None:
    data = info.data.get("data")
    if data is not None and not data.sources:
        raise ValueError(
            "there is no text to train on: add `data.sources`. Received: none."
        )


def _check_given_teacher(
    teacher: TeacherSection,
    distill: DistillSection | None,
    finetune: FineTuneSection | None,
) -> None:
    """Raises ValueError if a teacher of a task is to do something else."""
    key = f"`teacher.{teacher.given_key}`"
    if teacher.task_source and (distill is not None or teacher.train):
        raise ValueError(
            f"{key} is fine-tuned on a task and cannot teach from text: distil "
            "in a recipe of its own, and give its student as `student.source`; "
            "remove `distill` and `teacher.train`."
        )
    if finetune is None or len(finetune.tasks) != 1:
        names = finetune.task_names if finetune else []
        raise ValueError(
            f"`tasks` must be the one task of {key}. Received: {names}."
        )
    (task,) = finetune.task_names
    if teacher.predictions is not None and finetune.cuts_student(task):
        raise ValueError(
            f"`by_task.{task}.cut_student` needs a teacher's layers, which "
            "`teacher.predictions` do not have; remove it. Received: true."
        )
    if finetune.augment_copies:
        raise ValueError(
            f"`augment_copies` asks an untuned teacher for words, and {key} is "
            f"not one; use 0. Received: {finetune.augment_copies}."
        )
    if finetune.teacher_seeds == "all":
        raise ValueError(
            "`teacher_seeds: all` is for teachers of several seeds, and "
            f"{key} is one; remove it. Received: 'all'."
        )
    if teacher.predictions is not None:
        _check_predictions(finetune)


def _check_predictions(finetune: FineTuneSection) -> None:
    """Raises ValueError if predictions alone cannot do what is asked for."""
    (name,) = finetune.task_names
    if finetune.own_task(name) is None:
        raise ValueError(
            "`tasks` must be a mapping with files, whose rows "
            f"`teacher.predictions` name. Received: {name!r}."
        )
    if finetune.teacher_cache:
        raise ValueError(
            "`teacher_cache` keeps the outputs of a teacher, and "
            "`teacher.predictions` are kept in any case; remove it. Received: "
            "true."
        )
    for stage in finetune.of_task(name).split_stages():
        for loss, settings in stage.losses.by_name.items():
            if settings.is_on_states or settings.is_on_attention:
                what = "attention" if settings.is_on_attention else "states"
                raise ValueError(
                    f"the loss {loss} reads {what} of the teacher, which "
                    "`teacher.predictions` do not have; remove it. Received: "
                    f"losses: {', '.join(stage.losses.by_name)}."
                )


def _cuts_students(
    distill: DistillSection | None, student: StudentSection | None
) -> bool:
    if distill is not None or student is None:
        return False
    return student.source is None


def _check_models(
    finetune: FineTuneSection,
    distill: DistillSection | None,
    student: StudentSection | None,
) -> None:
    """Raises ValueError if a row of the table has no model to start from."""
    sources = {
        "student": student.source if student else None,
        "baseline": student.baseline_source if student else None,
    }
    cut = _cuts_students(distill, student)
    cut_alone = [x for x in finetune.task_names if finetune.cuts_student(x)]
    each_cut = student is not None and len(cut_alone) == len(finetune.tasks)
    made = {
        "teacher": True,
        "ngrams": True,
        "elmo": True,
        "student": distill is not None or cut,
        "baseline": cut if distill is None else distill.baseline or each_cut,
    }
    remedies = {
        "student": "`student.num_layers`, to cut it from the fine-tuned "
        "teacher, `student.source`, or a `distill` section",
        "baseline": "`student.baseline_source`, or `distill.baseline: true`",
    }
    for row in finetune.rows:
        if not (made[row] or sources[row]):
            raise ValueError(
                f"the row {row!r} has no model to start from: give "
                f"{remedies[row]}, or leave it out of `rows`."
            )
    alone = "baseline" in finetune.rows and "teacher" not in finetune.rows
    other = None
    if alone and cut_alone:
        other = f"remove `by_task.{cut_alone[0]}.cut_student`"
    elif alone and cut and sources["baseline"] is None:
        other = "give `student.baseline_source`"
    if other is not None:
        raise ValueError(
            "the row 'baseline' is cut from the fine-tuned teacher: add "
            f"teacher to `rows`, or {other}. Received: {finetune.rows}."
        )

"""The runs whose recipes have every number off its default."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from recording import Recording, StopError, recorded, run_command, watch

import keras_distil.benchmark.latency
import keras_distil.benchmark.race
import keras_distil.runs.tasks
from keras_distil import data, export, models
from keras_distil.data.tasks.tables import open_table
from keras_distil.losses import registry
from keras_distil.runs import exports as runs_exports
from keras_distil.runs import time_plan
from keras_distil.runs.embeddings import beside, distillation, measures
from keras_distil.runs.embeddings import texts as embedding_texts
from keras_distil.runs.own_tasks import files as own_files
from keras_distil.training import compilation

TEMPERATURE = "distill.losses.soft_target.temperature"
TEXT_SOURCE = {"kind": "files", "pattern": "text/*.txt"}
# The minimum for a toy run; the runs below override it.
BASE = {
    "data": {"sources": [TEXT_SOURCE], "sequence_length": 11},
    "evaluate": {"sequences": 6, "batch_size": 3, "latency_length": 9},
}
DISTILL = {
    "steps": 40,
    "batch_size": 6,
    "learning_rate": 0.004,
    "jit_compile": False,
}
FINETUNE = {
    "tasks": ["rte"],
    "source": "files",
    "rows": ["teacher"],
    "max_length": 10,
    "jit_compile": False,
}
# Losses that the runs below do not name, with values for their settings.
OTHER_TEXT_LOSSES = tuple(
    set(registry.rows_for([registry.MASKED_LM])) - set(registry.TEXT_DEFAULTS)
)
EMBEDDING_LOSSES = tuple(
    set(registry.rows_for([registry.EMBEDDING]))
    - set(registry.rows_for([registry.MASKED_LM]))
)
OTHER_TASK_LOSSES = tuple(
    set(registry.rows_for(registry.TASK_KINDS)) - set(registry.TASK_DEFAULTS)
)
_VALUES = {
    "weight": 0.625,
    "layers": [["embeddings", "embeddings"]],
    "teacher": 1,
    "relation_heads": 4,
    "temperature": 3.0,
    "positions": "masked",
    "teacher_share": 0.25,
    "query_weight": 0.25,
    "key_weight": 0.5,
    "value_weight": 0.75,
    "projection": "learned",
    "dimensions": [5, 3],
}
# Embeddings have no attention.
_OF_ATTENTION = {"layers": [[0, 0]]}


def with_others(names, kinds, losses):
    """Adds other losses, with every setting off its default."""
    rows = registry.rows_for(kinds)
    others = {}
    for name in names:
        settings = rows[name].settings
        values = _VALUES | (_OF_ATTENTION if settings.is_on_attention else {})
        others[name] = {x: values[x] for x in settings.model_fields}
    return {**losses, **others}


EVERY_TASK_LOSS = with_others(
    OTHER_TASK_LOSSES,
    registry.TASK_KINDS,
    {
        "label": {"weight": 0.7},
        "soft_target": {
            "weight": 1.3,
            "temperature": 3.0,
            "confidence_slope": 0.2,
        },
        "cosine": {"weight": 0.4, "layers": "uniform", "teacher": 1},
    },
)
RAMPS = {
    "mlm": {
        "weight": {
            "kind": "exponential",
            "start": 8.0,
            "end": 2.0,
            "steps": 4,
        }
    },
    "soft_target": {
        "temperature": {
            "kind": "linear",
            "start": 5.0,
            "end": 3.0,
            "steps": 8,
        },
        "weight": {
            "kind": "piecewise",
            "boundaries": [3, 7],
            "values": [0.5, 0.25, 0.75],
        },
    },
    "cosine": {"weight": {"kind": "constant", "value": 0.375}},
}
TRAIN = {
    "steps": 20,
    "batch_size": 5,
    "learning_rate": 0.003,
    "warmup_steps": 4,
    "weight_decay": 0.3,
    "clip_norm": 0.7,
}
TEXT = {
    "seed": 7,
    "checkpoint_steps": 17,
    "student": {
        "num_layers": 2,
        "hidden_dim": 12,
        "intermediate_dim": 20,
        "dropout": 0.35,
    },
    "data": {
        "sources": [TEXT_SOURCE],
        "sequence_length": 11,
        "held_out_fraction": 0.3,
        "max_skipped_fraction": 0.35,
        "masking": {"rate": 0.4, "rare_token_exponent": 0.6},
    },
    "distill": {
        **DISTILL,
        "micro_batches": 3,
        "warmup_steps": 10,
        "decay": "cosine",
        "weight_decay": 0.2,
        "beta_2": 0.95,
        "clip_norm": 0.6,
        "losses": with_others(
            OTHER_TEXT_LOSSES,
            [registry.MASKED_LM],
            {
                "mlm": {"weight": 2.5},
                "soft_target": {
                    "weight": 5.5,
                    "temperature": 3.5,
                    "confidence_slope": 0.45,
                    "positions": "masked",
                },
                "cosine": {"weight": 0.5, "layers": [[0, 0], [1, 1]]},
            },
        ),
    },
}


def scheduled(name):
    """The settings of a loss on text that may follow a schedule."""
    rows = registry.rows_for([registry.MASKED_LM, registry.EMBEDDING])
    return rows[name].settings.scheduled


def _every_text_loss():
    names = (*registry.TEXT_DEFAULTS, *OTHER_TEXT_LOSSES)
    # The toy models are narrower than the default has heads.
    return {name: {} for name in names} | {
        "attention_relation": {"relation_heads": 4}
    }


def merged(base: Any, over: Any) -> Any:
    """Merges nested dicts; the second takes precedence."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    both = {key: merged(base.get(key), value) for key, value in over.items()}
    return {**copy.deepcopy(base), **both}


class Home:
    """The files of all runs: a teacher, students, text and tasks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.teacher = root / "teacher"
        toys.write_teacher(self.teacher)
        toys.write_text(root / "data" / "text")
        toys.write_glue(root / "data")
        toys.write_squad(root / "data")
        self.student = root / "student.keras"
        self.baseline = root / "baseline.keras"
        toys.save_student(self.student, self.teacher, 1, intermediate_dim=24)
        toys.save_student(self.baseline, self.teacher, 2, hidden_dim=8)

    def recipe(self, name: str, *parts: dict[str, Any]) -> dict[str, Any]:
        """Returns the values of a recipe."""
        values = {
            "name": name,
            "teacher": {"source": str(self.teacher)},
            "data": {"root": str(self.root / "data")},
        }
        for part in (BASE, *parts):
            values = merged(values, part)
        return values

    def write(self, values: dict[str, Any]) -> Path:
        """Writes a recipe."""
        path = self.root / f"{values['name']}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def start(
        self,
        values: dict[str, Any],
        *words: Any,
        command: str = "run",
        watched: Callable[[Recording, pytest.MonkeyPatch], None] | None = None,
        output: bool = True,
        **options: Any,
    ) -> Recording:
        """Runs a recipe and records it."""
        folder = self.root / "runs" / values["name"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERAS_DISTIL_CACHE", str(self.root / "cache"))
            # XLA compiles toys, too, where a recipe lets it.
            patch.setattr(compilation, "_FEWEST_WEIGHTS", 1)
            with recorded(folder, **options) as made:
                if watched is not None:
                    watched(made, patch)
                given = [command, self.write(values), *words]
                if output:
                    given += ["--output", folder]
                run_command(*given)
        return made


def stop(*positional: Any, **named: Any) -> None:
    raise StopError


def _minute_updates(made: Recording, patch: pytest.MonkeyPatch) -> None:
    """Every update takes a minute, and what is left is enough for the rest."""
    patch.setattr(time_plan, "_time_updates", lambda run, trial: (60.0, 0.0))


def _corpora(made: Recording, patch: pytest.MonkeyPatch) -> None:
    for name in ("prepare_corpus", "open_corpus", "masked_lm_dataset"):
        watch(made, patch, data, name)


def _sources(made: Recording, patch: pytest.MonkeyPatch) -> None:
    watch(made, patch, data, "prepare_corpus", stop)


def _own_data(made: Recording, patch: pytest.MonkeyPatch) -> None:
    def table(name: str, split: str) -> Any:
        return open_table(
            Path(made.folder.parents[1], "data", "own", "tfds.csv")
        )

    watch(made, patch, own_files, "open_tfds", table)
    watch(made, patch, keras_distil.runs.tasks, "load_own_task")


def _race(made: Recording, patch: pytest.MonkeyPatch) -> None:
    def measure(*positional: Any, **named: Any) -> list:
        # The second number of threads is the last.
        if len(made.calls["run_race"]) == 2:
            raise StopError
        return []

    watch(made, patch, keras_distil.benchmark.race, "run_race", measure)


def _exports(made: Recording, patch: pytest.MonkeyPatch) -> None:
    watch(made, patch, export, "export", report_of_nothing)
    # As if the model were a student with a temperature.
    watch(made, patch, runs_exports, "temperature_of", lambda path: 2.0)


def report_of_nothing(*positional: Any, **named: Any) -> export.ExportReport:
    """Returns what an exporter that writes nothing would return."""
    target = next(x for x in (*positional, *named.values()) if _is_path(x))
    return _Nothing(Path(target))


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike)


class _Nothing:
    """Stands for the report of an export."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "precision": "float32",
            "size_mb": 0.0,
            "comparison": {
                "max_difference": 0.0,
                "top1_agreement": None,
                "score": None,
            },
        }


def _scorers(made: Recording, patch: pytest.MonkeyPatch) -> None:
    for name in ("STSEvaluator", "RetrievalEvaluator"):
        watch(made, patch, measures.evaluation, name)
    watch(made, patch, distillation, "open_beside")
    watch(made, patch, beside, "_open")
    watch(made, patch, models, "static_embedding_model")
    watch(made, patch, embedding_texts, "prepare_texts")


def _latency(made: Recording, patch: pytest.MonkeyPatch) -> None:
    module = keras_distil.benchmark.latency
    watch(made, patch, module, "masked_lm_encoder_call")


class Runs:
    """The runs by name, each made when first asked for.

    Every method makes one run and returns its recording.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.values: dict[str, dict[str, Any]] = {}
        self._made: dict[str, Recording] = {}

    def __call__(self, name: str) -> Recording:
        """Returns the recording of a run."""
        if name not in self._made:
            self._made[name] = getattr(self, f"_{name}")(name)
        return self._made[name]

    def _start(
        self, name: str, *parts: dict[str, Any], **options: Any
    ) -> Recording:
        self.values[name] = self.home.recipe(name, *parts)
        return self.home.start(self.values[name], **options)

    # === Runs that learn from text ===

    def _text(self, name: str) -> Recording:
        return self._start(name, TEXT, stop_at="distill", watched=_corpora)

    def _seed(self, name: str) -> Recording:
        """Like `text`, with another seed."""
        return self._start(name, TEXT, {"seed": 8}, stop_at="distill")

    def _schedules(self, name: str) -> Recording:
        return self._start(
            name,
            {"student": {"layers": [1]}},
            {
                "distill": {
                    **DISTILL,
                    "losses": _every_text_loss(),
                    "schedules": {
                        **RAMPS,
                        **{
                            name: dict.fromkeys(
                                scheduled(name), RAMPS["cosine"]["weight"]
                            )
                            for name in OTHER_TEXT_LOSSES
                        },
                    },
                }
            },
            stop_at="distill",
        )

    def _cosine(self, name: str) -> Recording:
        """The other kind of ramp."""
        values = {"kind": "cosine", "start": 5.0, "end": 3.0, "steps": 8}
        ramp = {"temperature": values}
        return self._start(
            name,
            # Other heads than the teacher's, which no loss on attention reads.
            {"student": {"hidden_dim": 12, "num_heads": 3}},
            {"distill": {**DISTILL, "schedules": {"soft_target": ramp}}},
            stop_at="distill",
        )

    def _balance(self, name: str) -> Recording:
        balance = {"mlm": 2.0, "soft_target": 3.0, "cosine": 4.0}
        balance |= dict.fromkeys(OTHER_TEXT_LOSSES, 5.0)
        return self._start(
            name,
            {"student": {"initialization": "random"}},
            {"data": {"layout": "bucketed", "held_out_fraction": 0.3}},
            {
                "distill": {
                    **DISTILL,
                    "steps": None,
                    "epochs": 2.5,
                    "batch_size": 3,
                    "losses": _every_text_loss(),
                    "balance": {**balance, "every_steps": 3},
                    "strategy": "mirrored",
                }
            },
            stop_at="distill",
            watched=_corpora,
        )

    def _precision(self, name: str) -> Recording:
        return self._start(
            name,
            {"precision": "mixed_bfloat16", "distill": DISTILL},
            stop_at="distill",
        )

    def _minutes(self, name: str) -> Recording:
        return self._start(
            name,
            {"distill": {**DISTILL, "steps": None, "minutes": 7.5}},
            stop_at="distill",
            watched=_minute_updates,
        )

    def _whole_minutes(self, name: str) -> Recording:
        return self._start(
            name,
            {"minutes": 9.5, "distill": {**DISTILL, "steps": None}},
            stop_at="distill",
            watched=_minute_updates,
        )

    def _cache(self, name: str) -> Recording:
        cache = {"top_k": 7, "maskings": 3}
        return self._start(
            name,
            {
                "teacher": {"cache": cache},
                "data": TEXT["data"],
                # Three passes, since a shorter run would use fewer maskings.
                "distill": {**DISTILL, "steps": 90},
            },
            stop_at="distill",
        )

    def _adapter(self, name: str) -> Recording:
        train = {**TRAIN, "method": "adapter", "rank": 3}
        return self._start(name, {"teacher": {"train": train}})

    def _initial_adapter(self, name: str) -> Recording:
        """Continues where `adapter` ended."""
        earlier = self("adapter").folder / "adapter.safetensors"
        train = {**TRAIN, "method": "adapter", "rank": 3}
        train["initial_adapter"] = str(earlier)
        return self._start(
            name, {"teacher": {"train": train}}, stop_at="teacher"
        )

    def _all_weights(self, name: str) -> Recording:
        train = {**TRAIN, "method": "all_weights"}
        return self._start(
            name, {"teacher": {"train": train}}, stop_at="teacher"
        )

    def _head(self, name: str) -> Recording:
        """Starts from a teacher without a head."""
        folder = toys.without_head(self.home.teacher, self.home.root / "bare")
        return self._start(
            name,
            {"teacher": {"source": str(folder), "allow_new_head": True}},
            {"distill": DISTILL},
            stop_at="distill",
        )

    def _sources(self, name: str) -> Recording:
        sources = [
            {"kind": "documentation", "packages": ["filelock"]},
            {
                "kind": "files",
                "pattern": "*.jsonl",
                "field": "body",
                "encoding": "latin-1",
            },
            {
                "kind": "tfds",
                "name": "toy_prose",
                "split": "test",
                "field": "title",
            },
        ]
        return self._start(
            name,
            {"data": {"sources": sources, "allow_outside_root": True}},
            {"distill": DISTILL},
            watched=_sources,
        )

    def _prepared(self, name: str) -> Recording:
        """Uses a corpus from `prepare`, equal to the one that `text` makes."""
        corpus = self.home.root / "data" / "corpora" / "prepared"
        made = self.home.recipe("to_prepare", TEXT)
        self.home.start(
            made, "--output", corpus, command="prepare", output=False
        )
        nothing = {"kind": "files", "pattern": "nothing/*.txt"}
        return self._start(
            name,
            TEXT,
            {"data": {"prepared": "corpora/prepared", "sources": [nothing]}},
            stop_at="distill",
            watched=_corpora,
        )

    def _finished(self, name: str) -> Recording:
        """The shortest run that finishes, including its card."""
        return self._start(
            name,
            {"teacher": {"license": "Licence of the teacher"}},
            {"data": {"license": "Licence of the data"}},
            {"distill": {**DISTILL, "baseline": True}},
            {"evaluate": {"samples": 1}},
            watched=_latency,
        )

    # === Sentence embeddings ===

    def _embed(
        self, name: str, *parts: dict[str, Any], **options: Any
    ) -> Recording:
        teacher = self.home.root / "embedder.keras"
        if not teacher.is_file():
            toys.save_embedder(teacher, self.home.teacher)
        distill = {**DISTILL, "task": "embedding"}
        return self._start(
            name,
            {"teacher": {"source": str(teacher)}, "distill": distill},
            *parts,
            stop_at="distill",
            watched=_scorers,
            **options,
        )

    def _embedding(self, name: str) -> Recording:
        toys.write_scored(self.home.root / "data")
        losses = with_others(EMBEDDING_LOSSES, [registry.EMBEDDING], {})
        schedules = {
            loss: dict.fromkeys(scheduled(loss), RAMPS["cosine"]["weight"])
            for loss in EMBEDDING_LOSSES
        }
        return self._embed(
            name,
            {
                "teacher": {"dimension": 12},
                "student": {
                    "num_layers": 1,
                    "pooling_mode": "max",
                    "normalize": False,
                    "dimension": 8,
                },
                "data": {"texts": "both", "max_texts": 17},
                "distill": {"losses": losses, "schedules": schedules},
                "evaluate": {
                    "sts": "sts.tsv",
                    "retrieval": "found",
                    "beside": {"other": str(self.home.root / "embedder.keras")},
                },
            },
        )

    def _static(self, name: str) -> Recording:
        losses = dict.fromkeys(EMBEDDING_LOSSES, {}) | {
            "matryoshka": {"dimensions": [4]}
        }
        return self._embed(
            name,
            {
                "student": {"kind": "static", "vocabulary": 67},
                "distill": {
                    "losses": losses,
                    "balance": dict.fromkeys(EMBEDDING_LOSSES, 5.0),
                },
            },
        )

    # === Tasks ===

    def _tasks(self, name: str) -> Recording:
        settings = {
            "rows": ["teacher", "student"],
            "seeds": [5, 8],
            "teacher_seeds": "all",
            "epochs": 3,
            "patience": 4,
            "batch_size": 6,
            "learning_rate": 0.007,
            "warmup_fraction": 0.25,
            "weight_decay": 0.15,
            "clip_norm": 0.8,
            "dropout": 0.25,
            "losses": EVERY_TASK_LOSS,
            "augment_copies": 2,
            "teacher_cache": True,
        }
        return self._start(
            name,
            {"student": {"source": str(self.home.student)}},
            {"finetune": {**FINETUNE, **settings}},
            stop_at="rte/student/seed_5",
        )

    def _by_task(self, name: str) -> Recording:
        own = {"seeds": [9], "epochs": 7, "batch_size": 4}
        return self._start(
            name,
            {"student": {"baseline_source": str(self.home.baseline)}},
            {
                "finetune": {
                    **FINETUNE,
                    "rows": ["baseline"],
                    "by_task": {"rte": {**own, "learning_rate": 0.006}},
                }
            },
            stop_at="",
        )

    def _more_text(self, name: str) -> Recording:
        """A student of copies and of unlabelled text."""
        toys.write_unlabelled(self.home.root / "data" / "more")
        settings = {
            "rows": ["teacher", "student"],
            "batch_size": 8,
            "by_task": {"rte": {"unlabelled": "more/*.tsv"}},
            "augment_copies": 3,
            "augmented_share": 0.25,
            "unlabelled_share": 0.5,
        }
        return self._start(
            name,
            {"student": {"source": str(self.home.student)}},
            {"finetune": {**FINETUNE, **settings}},
            stop_at="rte/student/seed_0",
        )

    def _squad(self, name: str) -> Recording:
        own = {"tasks": ["squad"], "stride": 2, "max_question": 2}
        return self._start(name, {"finetune": {**FINETUNE, **own}}, stop_at="")

    def _stages(self, name: str) -> Recording:
        """Every row and seed of two tasks, up to the last one."""
        plain = {"losses": {"label": {}}, "epochs": 3}
        every = {"losses": EVERY_TASK_LOSS, "epochs": 2, "learning_rate": 0.003}
        own = {
            "tasks": ["rte", "mrpc"],
            "rows": ["teacher", "student"],
            "seeds": [3, 4],
            "teacher_seeds": "all",
            "selection": "train",
            "batch_size": 6,
            "stages": [every, plain],
            "by_task": {
                "mrpc": {
                    "stages": [{**plain, "epochs": 4}],
                    "cut_student": True,
                }
            },
        }
        # Of the sizes of one that is cut from the teacher.
        student = self.home.root / "of_stages.keras"
        toys.save_student(student, self.home.teacher, 3)
        return self._start(
            name,
            {"student": {"source": str(student), "num_layers": 1}},
            {"finetune": {**FINETUNE, **own}},
            stop_at="mrpc/student/seed_4",
        )

    def _given(self, name: str) -> Recording:
        """A teacher that is fine-tuned already, and always says the same."""
        file = self.home.root / "given.keras"
        toys.save_task_teacher(file, self.home.teacher)
        teacher = {"task_source": str(file), "allow_chance_score": True}
        return self._start(
            name,
            {"teacher": teacher, "student": {"num_layers": 1}},
            {"finetune": {**FINETUNE, "rows": ["teacher", "student"]}},
            stop_at="rte/student/seed_0",
        )

    def _predicted(self, name: str) -> Recording:
        """A teacher of which there are predictions alone."""
        folder = self.home.root / "data" / "predicted"
        toys.write_predicted(folder)
        own = {
            "name": "mine",
            "kind": "classification",
            "train": "predicted/train.csv",
            "dev": "predicted/dev.csv",
        }
        teacher = {"predictions": str(folder / "predictions.jsonl")}
        settings = {"tasks": [own], "rows": ["teacher", "student"]}
        return self._start(
            name,
            {"teacher": teacher, "student": {"num_layers": 1}},
            {"finetune": {**FINETUNE, **settings}},
            stop_at="mine/student/seed_0",
        )

    def _own(self, name: str) -> Recording:
        """Tasks from files, of which every setting is off its default."""
        own = {
            "name": "mine",
            "kind": "classification",
            "train": ["own/train.csv", "own/more*.csv"],
            "dev": "own/dev.csv",
            "test": "own/test.csv",
            "columns": {"text": "body", "label": "topic", "id": False},
            "labels": ["no", "yes"],
            "metric": "macro_f1",
            "encoding": "latin-1",
            "class_weights": {"no": 3.0},
            "stride": 2,
        }
        several = {
            "name": "several",
            "kind": "multi_label",
            "tfds": "toy_labels",
            "train": "part",
            "dev_fraction": 0.4,
            "separator": ";",
        }
        toys.write_own(self.home.root / "data" / "own")
        return self._start(
            name,
            {"finetune": {**FINETUNE, "max_length": 8, "epochs": 1}},
            {"finetune": {"tasks": [own, several]}},
            stop_at="several/teacher/seed_0",
            watched=_own_data,
        )

    # === Uses of a student ===

    def _export(self, name: str) -> Recording:
        formats = ["saved_model", "litert_float32"]
        settings = {"formats": formats, "max_length": 9, "lengths": [8, 10]}
        settings |= {"calibrate": False}
        self.values[name] = self.home.recipe(
            name, {"distill": DISTILL, "export": settings}
        )
        return self.home.start(
            self.values[name],
            "--model",
            self.home.student,
            command="export",
            watched=_exports,
        )

    def _benchmark(self, name: str) -> Recording:
        settings = {
            "lengths": [8, 11],
            "threads": [1, 3],
            "throughput_length": 9,
            "rounds": 4,
        }
        self.values[name] = self.home.recipe(
            name, {"distill": DISTILL, "benchmark": settings}
        )
        return self.home.start(
            self.values[name],
            "--model",
            self.home.student,
            command="benchmark",
            output=False,
            watched=_race,
        )

    def _search(self, name: str) -> Recording:
        space = {
            TEMPERATURE: {"choices": [1.5, 4.5]},
            "distill.learning_rate": {
                "min": 0.002,
                "max": 0.02,
                "scale": "log",
            },
        }
        settings = {
            "tuner": "random",
            "trials": 2,
            "objective": "mlm_loss",
            "evaluations": 4,
            "space": space,
        }
        return self._start(
            name, {"distill": DISTILL, "search": settings}, command="search"
        )

    def _slow(self, name: str) -> Recording:
        """A search whose trials all take too long."""
        settings = {
            "tuner": "grid",
            "max_latency_ms": 1e-6,
            "space": {TEMPERATURE: {"choices": [1.5, 4.5]}},
        }
        # No trial has a score, so the command ends with an error.
        with pytest.raises(RuntimeError, match="status 1"):
            self._start(
                name, {"distill": DISTILL, "search": settings}, command="search"
            )
        return Recording(self.home.root / "runs" / name)

"""Size and speed of DistilBERT and BERT-base in every format.

The models have random weights of the published shapes, because speed does not
depend on the values. The timed model is a classifier with two classes, like
most models in use; sizes are those of the masked-LM models, whose decoder
shares the table of embeddings.

    python benchmarks/inference.py                       # prints tables
    python benchmarks/inference.py --json inference.json
    python benchmarks/inference.py --paper               # the paper's table 3
    python benchmarks/inference.py --conversions 10      # the exporter

PyTorch is measured if it is installed: pip install -e '.[peers]'
"""

import argparse
import importlib.util
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from keras_distil.utils.quiet import import_tensorflow

SHAPES = {
    "BERT-base": {"num_layers": 12, "num_heads": 12, "hidden_dim": 768},
    "small": {"num_layers": 2, "num_heads": 2, "hidden_dim": 64},
}
FORMATS = (
    "hugging_face",
    "saved_model",
    "onnx",
    "litert_float32",
    "litert_dynamic_int8",
)


def make_models(shape):
    """Makes BERT and its DistilBERT with half the layers, random weights."""
    from keras_distil import models

    width = SHAPES[shape]["hidden_dim"]
    backbone = models.ExactBertBackbone(
        vocabulary_size=30522,
        intermediate_dim=4 * width,
        max_sequence_length=512,
        dropout=0.0,
        **SHAPES[shape],
    )
    teacher = models.ExactBertMaskedLM(backbone)
    student = models.initialize_student(
        teacher, SHAPES[shape]["num_layers"] // 2
    )
    return {"teacher": teacher, "student": student}


def export(model, folder, name, length):
    """Writes one format; the gate passes anything, as weights are random."""
    from keras_distil import export

    tolerance = export.Tolerance(1e9, 1e9, 0.0)
    target = folder / name
    if name.startswith("litert_"):
        return export.export_litert(
            model,
            target,
            precision=name.removeprefix("litert_"),
            lengths=[length],
            tolerance=tolerance,
        )
    if name == "hugging_face":
        tokenizer = make_tokenizer(folder)
        return export.export_hugging_face(
            model, target, tokenizer, tolerance=tolerance
        )
    function = {
        "saved_model": export.export_saved_model,
        "onnx": export.export_onnx,
    }[name]
    return function(model, target, tolerance=tolerance)


def make_tokenizer(folder):
    """Makes a tokenizer with a vocabulary of BERT's size."""
    from keras_distil import data

    place = folder / "vocabulary"
    place.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{number}" for number in range(30522 - len(words))]
    (place / "vocab.txt").write_text("\n".join(words) + "\n")
    return data.load_tokenizer(place)


def contestants(folder, reports):
    """Yields everything that can run here."""
    from keras_distil.benchmark import Contestant

    torch = all(map(importlib.util.find_spec, ("torch", "transformers")))
    for role in ("teacher", "student"):
        for name in FORMATS:
            path = folder / role / name
            size = reports[role][name]
            if name == "hugging_face":
                runtimes = ("pytorch", "pytorch_int8") if torch else ()
            elif name == "onnx":
                path, runtimes = path / "model.onnx", ("onnx", "onnx_int8")
            else:
                litert = name.startswith("litert_")
                runtimes = ("litert" if litert else name,)
            for runtime in runtimes:
                shown = (
                    name if runtime in ("litert", "saved_model") else runtime
                )
                # What these runtimes quantise exists only in memory.
                size = None if runtime.endswith("_int8") else size
                yield Contestant(f"{role} {shown}", runtime, path, size)


def measure(arguments):
    """Exports both models and races them."""
    from keras_distil import models
    from keras_distil.benchmark import run_race, size_mb

    sizes, reports = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for role, model in make_models(arguments.shape).items():
            (folder / role).mkdir()
            (folder / role / "masked_lm").mkdir()
            report = export(
                model,
                folder / role / "masked_lm",
                "litert_dynamic_int8",
                arguments.length,
            )
            sizes[role] = {
                "weights_mb": size_mb(model),
                "litert_dynamic_int8_mb": report.size_mb,
            }
            task = models.task_model(model, "classification", 2)
            reports[role] = {}
            for name in FORMATS:
                report = export(task, folder / role, name, arguments.length)
                reports[role][name] = report.size_mb
                print(f"{role} {name}: {report.size_mb:.1f} MB", flush=True)
        results = run_race(
            list(contestants(folder, reports)),
            lengths=[arguments.length],
            num_threads=arguments.threads,
            throughput_length=arguments.length,
            rounds=arguments.rounds,
        )
    return sizes, results


def ratios(results, length):
    """Returns the ratios of interest, of medians in one run."""
    median = {
        each.contestant.name: each.latency[length].median_ms
        for each in results
        if length in each.latency
    }
    pairs = {
        "BERT-base in PyTorch / DistilBERT int8 in LiteRT": (
            "teacher pytorch",
            "student litert_dynamic_int8",
        ),
        "DistilBERT int8 in ONNX Runtime / in LiteRT": (
            "student onnx_int8",
            "student litert_dynamic_int8",
        ),
        "DistilBERT float32 in ONNX Runtime / in LiteRT": (
            "student onnx",
            "student litert_float32",
        ),
    }
    for name in median:
        role, _, rest = name.partition(" ")
        if role == "student":
            pairs[f"teacher / student, {rest}"] = (f"teacher {rest}", name)
    return {
        title: median[slow] / median[fast]
        for title, (slow, fast) in pairs.items()
        if slow in median and fast in median
    }


def paper_page(arguments):
    """Prints BERT-base, DistilBERT and ELMo next to published figures."""
    import tensorflow as tf

    from keras_distil import benchmark, models
    from keras_distil.runs import score_table

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    made = make_models(arguments.shape)
    elmo = models.ElmoClassifier(2)
    length = arguments.length
    calls = {
        "BERT-base": benchmark.masked_lm_encoder_call(made["teacher"], length),
        "DistilBERT": benchmark.masked_lm_encoder_call(made["student"], length),
        "ELMo": benchmark.elmo_call(elmo, length),
    }
    milliseconds = benchmark.measure_latency_ms(calls, runs=arguments.rounds)
    weights = {
        name: benchmark.parameter_count(model)
        for name, model in zip(calls, (*made.values(), elmo), strict=True)
    }
    published = {row.name: row for row in score_table.PUBLISHED}
    base, theirs = milliseconds["BERT-base"], published["BERT-base"].latency_ms
    print(
        "| model | weights | published | CPU ms | BERT-base / it "
        "| published ms | published ratio |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, ms in milliseconds.items():
        row = published[name]
        print(
            f"| {name} | {weights[name] / 1e6:.1f} M | "
            f"{row.parameters / 1e6:.0f} M | {ms:.1f} | {base / ms:.2f} "
            f"| {row.latency_ms:.0f} | {theirs / row.latency_ms:.2f} |"
        )
    return {"weights": weights, "milliseconds": milliseconds}


def convert_often(arguments):
    """Measures repeated conversions of BERT-base in one process."""
    teacher = make_models(arguments.shape)["teacher"]
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(arguments.conversions):
            started = time.perf_counter()
            export(
                teacher,
                Path(temporary) / str(number),
                "litert_dynamic_int8",
                arguments.length,
            )
            children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            figures.append(
                {
                    "seconds": time.perf_counter() - started,
                    "own_memory_mb": memory_mb(),
                    "converter_peak_mb": 1024 * children / 1e6,
                }
            )
            print(
                f"{number + 1}: {figures[-1]['seconds']:.0f} s, this process "
                f"{figures[-1]['own_memory_mb']:,.0f} MB, converter at most "
                f"{figures[-1]['converter_peak_mb']:,.0f} MB",
                flush=True,
            )
    return figures


def memory_mb():
    """Returns the current memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="BERT-base")
    add("--length", type=int, default=128)
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=15)
    add("--paper", action="store_true", help="the paper's table instead")
    add("--conversions", type=int, help="measure the exporter instead")
    add("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    import_tensorflow()
    if arguments.conversions:
        content = {"conversions": convert_often(arguments)}
    elif arguments.paper:
        content = {"paper": paper_page(arguments)}
    else:
        import rich.console

        from keras_distil.benchmark import chart

        sizes, results = measure(arguments)
        factors = ratios(results, arguments.length)
        title = f"{arguments.shape} and half of it, {arguments.threads} threads"
        rich.console.Console(width=140).print(
            chart.make_tables(results, title=title)
        )
        for role, each in sizes.items():
            print(
                f"{role}, masked LM: {each['weights_mb']:.1f} MB in float32, "
                f"{each['litert_dynamic_int8_mb']:.1f} MB in LiteRT int8"
            )
        for name, value in factors.items():
            print(f"{name}: {value:.2f}")
        content = {
            "arguments": {
                key: str(value)
                for key, value in vars(arguments).items()
                if key != "json"
            },
            "sizes": sizes,
            "ratios": factors,
            "measured": [each.to_json() for each in results],
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

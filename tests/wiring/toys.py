"""Toy models of different sizes, and texts and tasks for recorded runs."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from toy import randomize

from keras_distil import data, export, models

GOLDEN = Path(__file__).parents[1] / "models" / "golden" / "bert"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Number of examples in a training set. The development set has the same ones,
# so that a head that fits one is good on the other.
EXAMPLES = 20


def write_teacher(folder: Path) -> None:
    """Writes BERT of 2 layers, width 16 and 12 positions; words are letters."""
    shutil.copytree(GOLDEN, folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [f"##{letter}" for letter in LETTERS]
    vocabulary = [*special, *LETTERS, *pieces, *".,;:!?-"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")


def words(generator: random.Random, least: int, most: int) -> str:
    """Some letters, each a word; early letters are more frequent."""
    count = generator.randint(least, most)
    often = [30 / (1 + place) for place in range(len(LETTERS))]
    return " ".join(generator.choices(LETTERS, often, k=count))


def write_text(folder: Path, lines: int = 220) -> None:
    """Writes a file with paragraphs of letters."""
    generator = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    text = [words(generator, 5, 9) + "." for _ in range(lines)]
    (folder / "lines.txt").write_text("\n".join(text) + "\n")


def write_glue(root: Path) -> None:
    """Writes GLUE's files of MRPC, MNLI, STS-B and RTE."""
    mnli = ("entailment", "neutral", "contradiction")
    _write(
        root / "MRPC",
        ("train", "dev"),
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        lambda n, a, b: (("1", "1", "0")[n % 3], "1", "2", a, b),
    )
    _write(
        root / "MNLI",
        ("train", "dev_matched", "dev_mismatched"),
        ("index", "sentence1", "sentence2", "gold_label"),
        lambda n, a, b: (str(n), a, b, mnli[(n * n) % 3]),
    )
    _write(
        root / "STS-B",
        ("train", "dev"),
        ("index", "sentence1", "sentence2", "score"),
        lambda n, a, b: (str(n), a, b, f"{(n * 1.7) % 5:.2f}"),
    )
    _write(
        root / "RTE",
        ("train", "dev"),
        ("index", "sentence1", "sentence2", "label"),
        lambda n, a, b: (str(n), a, b, ("entailment", "not_entailment")[n % 2]),
    )


# Pairs that no other task has, all of three words.
UNLABELLED = {("v", "w x"), ("w", "x v"), ("x v", "w"), ("v v", "x")}


def write_unlabelled(folder: Path) -> None:
    """Writes pairs without labels, in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = sorted(UNLABELLED)
    for name, rows in (("1", pairs[:1]), ("2", pairs[1:])):
        lines = ["sentence1\tsentence2", *map("\t".join, rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def _write(folder, splits, header, line):
    for split in splits:
        generator = random.Random(folder.name)
        lines = ["\t".join(header)]
        for number in range(EXAMPLES):
            pair = words(generator, 1, 5), words(generator, 1, 5)
            lines.append("\t".join(line(number, *pair)))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def write_own(folder: Path) -> None:
    """Writes files of one's own: texts with a topic or several labels."""
    generator = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 12, "more1": 4, "more2": 4, "dev": 10, "test": 5}
    texts: dict[str, None] = {}
    while len(texts) < sum(sizes.values()):
        # The longest are read in two windows.
        texts[words(generator, 3, 9)] = None
    left = list(texts)
    for name, count in sizes.items():
        lines = ["id,body,topic"]
        # An id that is there twice, and a letter of latin-1.
        lines += [
            f"1,{left.pop()} \xe4,{('no', 'yes', 'yes')[i % 3]}"
            for i in range(count)
        ]
        text = "\n".join(lines) + "\n"
        (folder / f"{name}.csv").write_bytes(text.encode("latin-1"))
    lines = ["text,label", *(f"{text},a;b" for text in list(texts)[:9])]
    lines.append(f"{list(texts)[9]},b;c")
    (folder / "tfds.csv").write_text("\n".join(lines) + "\n")


def write_predicted(folder: Path) -> None:
    """Writes texts of two classes, and predictions for those to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, letters in (("train", LETTERS[:20]), ("dev", LETTERS[20:])):
        lines = ["id,text,label"]
        lines += [
            f"{name}{i},{letter} {letter},{('no', 'yes')[i % 2]}"
            for i, letter in enumerate(letters)
        ]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    rows = [
        {"id": f"train{i}", "probabilities": {"no": 0.2, "yes": 0.8}}
        for i in range(20)
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n"
    (folder / "predictions.jsonl").write_text(text)


def write_squad(folder: Path) -> None:
    """Writes SQuAD 1.1 with contexts of 8 letters and questions of 3."""
    generator = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        questions = [
            {
                "id": f"{split}{place}",
                "question": words(generator, 3, 3),
                "answers": [{"text": letter, "answer_start": 2 * place}],
            }
            for place, letter in enumerate("abcdefgh")
        ]
        paragraph = {"context": "a b c d e f g h", "qas": questions}
        content = {
            "version": "1.1",
            "data": [{"title": "x", "paragraphs": [paragraph]}],
        }
        (folder / f"{split}-v1.1.json").write_text(json.dumps(content))


def save_student(path: Path, teacher: Path, seed: int, **sizes: int) -> None:
    """Saves a student of its own size, with weights that make a difference."""
    made = models.initialize_student(
        models.load_teacher(str(teacher)), 1, seed=seed, **sizes
    )
    generator = np.random.default_rng(seed)
    for variable in made.trainable_variables:
        noise = generator.normal(0.0, 0.1, variable.shape)
        variable.assign_add(noise.astype("float32"))
    made.save(path)


def save_task_teacher(path: Path, teacher: Path) -> None:
    """Saves a model for RTE that prefers one class in all texts."""
    made = models.task_model(
        models.load_teacher(str(teacher)),
        "classification",
        2,
        labels=["not_entailment", "entailment"],
        seed=6,
    )
    made.output_dense.bias.assign([9.0, 0.0])
    made.save(path)


def save_embedder(path: Path, teacher: Path) -> None:
    """Saves the encoder of a checkpoint as a sentence embedder."""
    encoder = models.load_teacher(str(teacher))
    models.embedding_model(encoder).save(path)


def write_scored(folder: Path) -> None:
    """Writes pairs with a similarity, and a set for retrieval."""
    pairs = ["sentence1\tsentence2\tscore", "a b\ta c\t3", "a\tq r\t1"]
    (folder / "sts.tsv").write_text("\n".join([*pairs, "b\tb\t5", ""]))
    found = folder / "found"
    found.mkdir()
    for name, texts in (("corpus", "abc"), ("queries", "ab")):
        lines = [json.dumps({"_id": x, "text": x}) for x in texts]
        (found / f"{name}.jsonl").write_text("\n".join(lines))
    (found / "qrels.tsv").write_text("a\ta\t1\nb\tc\t1\n")


def without_head(teacher: Path, folder: Path) -> Path:
    """Copies a checkpoint without its masked-LM head."""
    shutil.copytree(teacher, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kept = {k: v for k, v in tensors.items() if not k.startswith("cls.")}
    save_file(kept, file)
    return folder


def write_wide_teacher(folder: Path, narrow: Path) -> None:
    """Writes a checkpoint whose size shows in tenths of a megabyte.

    Args:
        folder: where to write it.
        narrow: a checkpoint with the same vocabulary.
    """
    backbone = models.ExactBertBackbone(
        vocabulary_size=64,
        num_layers=2,
        num_heads=4,
        hidden_dim=96,
        intermediate_dim=192,
        max_sequence_length=12,
    )
    made = randomize(models.ExactBertMaskedLM(backbone), seed=5, scale=0.15)
    bias = np.array(made.masked_lm_head._bias)
    bias[[5, 6, 7]] += 9.0
    made.masked_lm_head._bias.assign(bias)
    tokenizer = data.load_tokenizer(narrow)
    export.export_hugging_face(made, folder, tokenizer, overwrite=True)

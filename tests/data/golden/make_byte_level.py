"""Writes `byte_level.json`: what transformers gives for each folder and text.

Also `word_piece.json`, the ids of the hard texts from BERT's tokenizer. Run by
hand, with `transformers` installed:
    python tests/data/golden/make_byte_level.py
"""

import json
import tempfile
from pathlib import Path

import byte_level_cases
import hard_texts
import tokenizer_cases
import transformers

HERE = Path(__file__).parent


def load(files: dict):
    """The tokenizer that transformers makes of a folder's files."""
    with tempfile.TemporaryDirectory() as root:
        folder = tokenizer_cases.write(Path(root) / "case", files)
        return transformers.AutoTokenizer.from_pretrained(folder)


def describe(name: str, files: dict) -> dict:
    """Ids of all texts, a pair's, and which token plays each role."""
    tokenizer = load(files)
    texts = byte_level_cases.TEXTS
    pair = tokenizer(texts[0], texts[1], return_token_type_ids=True)
    encoded = tokenizer(
        texts, return_offsets_mapping=True, add_special_tokens=False
    )
    described = {
        "ids": tokenizer(texts)["input_ids"],
        "offsets": encoded["offset_mapping"],
        "pair": pair["input_ids"],
        "segments": pair["token_type_ids"],
        "mask": tokenizer.mask_token_id,
        "pad": tokenizer.pad_token_id,
        "class": type(tokenizer).__name__,
    }
    if name in byte_level_cases.HARD_CASES:
        hard = tokenizer(hard_texts.HARD_TEXTS)
        described["hard"] = hard["input_ids"]
    return described


def write(name: str, content: dict) -> None:
    """Writes golden values beside this script, one line for each case."""
    text = json.dumps({"transformers": transformers.__version__, **content})
    path = HERE / name
    path.write_text(text.replace('}, "', '},\n"') + "\n", "utf-8")


def main() -> None:
    """Writes both files."""
    cases = byte_level_cases.CASES
    write(
        "byte_level.json", {name: describe(name, cases[name]) for name in cases}
    )
    vocabulary = (HERE / "word_piece" / "vocab.txt").read_text("utf-8")
    tokenizer = load({"vocab.txt": vocabulary})
    hard = tokenizer(hard_texts.HARD_TEXTS)["input_ids"]
    write("word_piece.json", {"hard": hard})


if __name__ == "__main__":
    main()

"""Trains the small tokenizers of both kinds beside this script.

They learn from the text of this project's documentation. Run by hand:
    python tests/data/golden/train_tokenizers.py
"""

import json
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
# Some letters in capitals and some signs are rare in the documentation.
LETTERS = [chr(code) for code in range(33, 127)] + list("éüñ中日αжя")


def read_paragraphs() -> list[str]:
    """The paragraphs of the pages in `docs`."""
    pages = sorted((ROOT / "docs").glob("*.md"))
    return [
        text for page in pages for text in page.read_text("utf-8").split("\n\n")
    ]


def train_byte_level_bpe(texts: list[str]) -> None:
    """Writes vocab.json and merges.txt, with RoBERTa's first tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    folder = HERE / "byte_level_bpe"
    model = json.loads(tokenizer.to_str())["model"]
    words = model["vocab"] | {"<mask>": len(model["vocab"])}
    text = json.dumps(words, ensure_ascii=False, indent=0)
    (folder / "vocab.json").write_text(text + "\n", "utf-8")
    merges = "".join(f"{a} {b}\n" for a, b in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")


def train_word_piece(texts: list[str]) -> None:
    """Writes vocab.txt, with BERT's first tokens."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=700,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=LETTERS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    words = tokenizer.get_vocab()
    lines = "\n".join(sorted(words, key=words.get))
    path = HERE / "word_piece" / "vocab.txt"
    path.write_text(lines + "\n", "utf-8")


if __name__ == "__main__":
    paragraphs = read_paragraphs()
    train_byte_level_bpe(paragraphs)
    train_word_piece(paragraphs)

"""Writes `tokenizers.json`: the ids that transformers gives for each folder.

Run by hand, with `transformers` installed:
    python tests/data/golden/make_tokenizers.py
"""

import json
import tempfile
from pathlib import Path

import tokenizer_cases
import transformers


def ids_of(name: str, files: dict) -> dict:
    """Token ids of all texts, alone and as a pair with the next one."""
    with tempfile.TemporaryDirectory() as root:
        folder = tokenizer_cases.write(Path(root) / "case", files)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = tokenizer_cases.TEXTS
    return {
        "ids": [tokenizer(text)["input_ids"] for text in texts],
        "pair": tokenizer(texts[0], texts[1])["input_ids"],
        "class": type(tokenizer).__name__,
    }


def main() -> None:
    """Writes the file beside this script."""
    made = {
        name: ids_of(name, files)
        for name, files in tokenizer_cases.CASES.items()
    }
    text = json.dumps({"transformers": transformers.__version__, **made})
    path = Path(__file__).with_name("tokenizers.json")
    path.write_text(text.replace('}, "', '},\n"') + "\n", "utf-8")


if __name__ == "__main__":
    main()

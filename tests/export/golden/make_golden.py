"""Makes the golden checkpoints, outputs and token ids beside this file.

They come from the Hugging Face implementation, so they are independent of
this package. Run once, with torch and transformers installed, from here:

    python make_golden.py
"""

import json
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
LENGTH = 7
CLASSES = 3
SIZES = {"vocab_size": 40, "max_position_embeddings": 10}
BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
ROBERTA = {**BERT, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
DISTIL_BERT = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12}
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")

# Every way in which tokenizers of BERT are known to differ.
HARD_TEXTS = [
    "",
    " \t\n",
    "Crème brûlée à la façon de Zoë, naïve café",
    "e\u0301 o\u0308\u0323 n\u0303 \u0301",
    "Straße ½ ﬁne 𝒜𝔅𝕔 ⅷ ① ﷺ",
    "日本語のテキスト mixed 한국어 和 中文。",
    "İstanbul ΣΊΣΥΦΟΣ ǅ Ω",
    "हिन्दी में लिखा ไทย",
    "👍🏽 family 👨\u200d👩\u200d👧 ❤\ufe0f",
    "zero\u200bwidth \ufeffmark soft\u00adhyphen",
    "control\x00 \x07char\tand\u2028line\u00a0space\u3000wide",
    "private \ue000 \U0010ff00\U0010ff04 replaced \ufffd",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "don't re-enter (it's \"quoted\") — so… ¿no? 「yes」",
    "l" * 100,
    "l" * 101,
    "é" * 100 + " " + "é" * 101,
    "[CLS] spelt [MASK]out[SEP] [mask] [[MASK]] [UNK][PAD]",
    "a|b a||b",
]


def randomize(model):
    """Makes every weight matter: no zero bias, no unit scale."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        offset = 1.0 if "orm.weight" in name else 0.0
        parameter.data = offset + 0.5 * noise
    return model.eval()


def save_model(stem, sizes, head):
    """Writes a checkpoint of a task and its outputs."""
    config = getattr(transformers, f"{stem}Config")(
        **SIZES, **sizes, num_labels=2 if head == HEADS[2] else CLASSES
    )
    model = randomize(getattr(transformers, f"{stem}For{head}")(config))
    folder = HERE / f"{stem}For{head}"
    model.save_pretrained(folder)
    generator = np.random.default_rng(2)
    token_ids = generator.integers(5, 40, (2, LENGTH), dtype="int32")
    padding_mask = np.ones((2, LENGTH), "int32")
    padding_mask[1, 4:] = 0
    with torch.no_grad():
        outputs = model(
            input_ids=torch.tensor(token_ids).long(),
            attention_mask=torch.tensor(padding_mask).long(),
        )
    logits = (
        torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
        if head == HEADS[2]
        else outputs.logits
    )
    np.savez(
        folder / "outputs.npz",
        token_ids=token_ids,
        padding_mask=padding_mask,
        logits=logits.numpy(),
    )


def vocabulary():
    """Special tokens, and most characters of the texts in several forms."""
    characters = set()
    for text in HARD_TEXTS:
        for form in (text, text.lower(), unicodedata.normalize("NFD", text)):
            characters |= set(form) | set(form.lower())
    # Without these their words are unknown.
    characters -= set("和🏽Ωx")
    characters = sorted(
        c for c in characters if not c.isspace() and c.isprintable()
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    whole = ["cafe", "café", "##out", "naive", "mask", "strasse", "1/2", "fine"]
    return special + characters + [f"##{c}" for c in characters] + whole


def save_ids(lower_case):
    """Token ids of the texts, and of pairs of them, cut and whole."""
    words = vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(words) + "\n", "utf-8")
        settings = {"do_lower_case": lower_case}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings))
        made = transformers.BertTokenizer.from_pretrained(folder)
        pairs = [
            made(
                first, second, truncation="longest_first", max_length=20
            ).input_ids
            for first, second in zip(HARD_TEXTS, HARD_TEXTS[1:], strict=False)
        ]
        whole = [made(text).input_ids for text in HARD_TEXTS]
    content = {
        "do_lower_case": lower_case,
        "vocabulary": words,
        "texts": HARD_TEXTS,
        "ids": whole,
        "pairs_cut_to_20": pairs,
    }
    name = "uncased" if lower_case else "cased"
    (HERE / f"ids_{name}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    for head in HEADS:
        save_model("Bert", BERT, head)
        save_model("DistilBert", DISTIL_BERT, head)
        save_model("Roberta", ROBERTA, head)
    save_ids(lower_case=True)
    save_ids(lower_case=False)

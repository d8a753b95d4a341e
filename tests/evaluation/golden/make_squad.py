"""Writes squad.json: what the official evaluation scripts of SQuAD say.

`official.nlp.tools` of tf-models-official 2.20.0 holds copies of the scripts.
Run it in an environment of its own:

    pip install --no-deps tf-models-official==2.20.0 absl-py
    python tests/evaluation/golden/make_squad.py
"""

import json
import random
from pathlib import Path

from official.nlp.tools import squad_evaluate_v1_1 as first
from official.nlp.tools import squad_evaluate_v2_0 as second

STRINGS = [
    "",
    " \t\n",
    "the",
    "a",
    "An",
    ".",
    "-",
    "the the a",
    "The Nobel Prize",
    "nobel prize.",
    "Nobel  Prize in the Sciences",
    "\u201cNobel\u201d prize",
    "Theatre an der Wien",
    "theatre der wien",
    "3.14",
    "314",
    "1,000,000",
    "$1,000",
    "U.S.A.",
    "usa",
    "the-end",
    "theend",
    "the \u2013 end",
    "the\u2013end",
    "to be or not to be",
    "not to be",
    "to to to",
    "\u00c9cole a l'\u00e9t\u00e9",
    "\u00e9cole l\u00e9t\u00e9",
    "STRASSE",
    "stra\u00dfe",
    "\u0130stanbul",
    "\u6771\u4eac\u3002",
    "\u6771\u4eac",
    "\u00a0the\u00a0sea\u3000",
    "the_sea",
    "sea",
    "a b a",
    "cafe\u0301",
    "caf\u00e9",
]


def pairs():
    return {
        "normalized": [first._normalize_answer(s) for s in STRINGS],
        "exact": table(first._exact_match_score),
        "f1_of_1.1": table(first._f1_score),
        "f1_of_2.0": table(lambda p, g: second._compute_f1(g, p)),
    }


def table(metric):
    return [[float(metric(p, g)) for g in STRINGS] for p in STRINGS]


def questions(chance, impossible):
    made, predictions, scores = [], {}, {}
    levels = [i / 1000 for i in range(1, 201)]
    chance.shuffle(levels)
    for i in range(200):
        name = f"q{i}"
        no_answer = impossible and chance.random() < 0.4
        golds = [] if no_answer else chance.choices(STRINGS[2:], k=3)
        made.append(
            {"id": name, "golds": golds, "is_impossible": bool(no_answer)}
        )
        # Nothing, a gold answer or any string; never one that only looks like
        # an answer, to an impossible question: see `best_no_answer_threshold`.
        words = [s for s in STRINGS if first._normalize_answer(s)]
        choices = [""] + golds[:1] + chance.choices(words, k=1)
        predictions[name] = chance.choice(choices)
        level = levels[i]
        scores[name] = level + (0.4 if no_answer else 0.3)
    return made, predictions, scores


def dataset(made):
    entries = [
        {
            "id": question["id"],
            "answers": [{"text": text} for text in question["golds"]],
        }
        for question in made
    ]
    return [{"paragraphs": [{"qas": entries}]}]


def main():
    chance = random.Random(0)
    one = questions(chance, impossible=False)
    two = questions(chance, impossible=True)
    of_one = first.evaluate(dataset(one[0]), one[1])
    raw_exact, raw_f1 = second._get_raw_scores(dataset(two[0]), two[1])
    has_answer = second._make_qid_to_has_ans(dataset(two[0]))
    at = {}
    for threshold in (0.3, 0.45, 0.6):
        kept = [
            second._apply_no_ans_threshold(
                raw, two[2], has_answer, na_prob_thresh=threshold
            )
            for raw in (raw_exact, raw_f1)
        ]
        at[str(threshold)] = second._make_eval_dict(*kept)
    content = {
        "strings": STRINGS,
        "pairs": pairs(),
        "1.1": {
            "questions": one[0],
            "predictions": one[1],
            "scores": {key: 100 * value for key, value in of_one.items()},
        },
        "2.0": {
            "questions": two[0],
            "predictions": two[1],
            "no_answer_scores": two[2],
            # The scores and the best thresholds; predictions count as given.
            "scores": second.evaluate(dataset(two[0]), two[1], two[2]),
            "at_threshold": at,
        },
    }
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    Path(__file__).with_name("squad.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

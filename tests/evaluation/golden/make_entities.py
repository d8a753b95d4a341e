"""Makes `entities.json`: what seqeval 1.2.2 finds in random tags.

Run it with seqeval installed: `python make_entities.py > entities.json`.
"""

import json
import random
import sys
import warnings

from seqeval.metrics import classification_report, f1_score
from seqeval.metrics.sequence_labeling import get_entities

TYPES = ("PER", "ORG", "a-b")
# Tags of each scheme, and any of them in any order.
SCHEMES = {"IOB": "BI", "IOBES": "BIES", "any": "BIESO"}


def sentence(generator, prefixes):
    tags = []
    for _ in range(generator.randint(1, 12)):
        prefix = generator.choice(prefixes + "O")
        if prefix == "O":
            tags.append("O")
        elif generator.random() < 0.05:
            tags.append(prefix)
        else:
            tags.append(f"{prefix}-{generator.choice(TYPES)}")
    return tags


def case(seed, prefixes):
    generator = random.Random(seed)
    tags = [sentence(generator, prefixes) for _ in range(8)]
    predicted = []
    for one in tags:
        said = sentence(generator, prefixes) + ["O"] * 12
        mixed = [
            tag if generator.random() < 0.7 else other
            for tag, other in zip(one, said, strict=False)
        ]
        predicted.append(mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(
            tags, predicted, output_dict=True, zero_division=0
        )
        return {
            "tags": tags,
            "predicted": predicted,
            "f1": float(f1_score(tags, predicted, zero_division=0)),
            # Precision, recall, F1 and support of each type.
            "types": {
                # seqeval calls the type of tags without one `_`.
                kind.replace("_", ""): [float(x) for x in figures.values()]
                for kind, figures in report.items()
                if not kind.endswith(" avg")
            },
            "entities": sorted(
                [kind.replace("_", ""), begin, end]
                for kind, begin, end in get_entities(tags[0])
            ),
        }


cases = [
    case(seed, prefixes) for prefixes in SCHEMES.values() for seed in range(12)
]
json.dump({"cases": cases}, sys.stdout)
print()

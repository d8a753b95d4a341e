"""Entities in tags; those of seqeval are in the tests of metrics."""

import random

import pytest

from keras_distil.utils.entity_tags import EntityLabels, find_entities


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_classes_mark_the_entities_of_tags(prefixes):
    generator = random.Random(1)
    labels = ["O", *(f"{p}-{t}" for p in prefixes for t in ("PER", "A-B"))]
    known = EntityLabels.of(labels)
    for _ in range(200):
        classes = generator.choices(range(len(labels)), k=8)
        found = {
            (known.types[classes[first]], first, last)
            for first, last in known.find(classes)
        }
        assert found == find_entities([labels[i] for i in classes])


def test_tags_without_prefixes():
    known = EntityLabels.of(["LOC", "O", "PER"])
    assert known.types[0] == "LOC"
    assert known.find([0, 0, 1, 2, 0, 2]) == [(0, 1), (3, 3), (4, 4), (5, 5)]
    # Without `O`, every word is found.
    assert EntityLabels.of(["NOUN", "VERB"]).find([0, 0, 1]) == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert EntityLabels.of(["O", "B-X"]).find([]) == []

"""Faults in recipes for sentence embeddings: texts, vectors, runs."""

from faults.fault import Fault

_TEXTS = "tests/data/corpus/test_texts.py"
_VECTORS = "tests/teachers/embeddings/test_cached_embedding_teacher.py"
_NEIGHBOURS = ("tests/evaluation/test_neighbours.py",)
_RUN = "tests/runs/embeddings/test_embedding_run.py"

FAULTS = (
    Fault(
        "a repeated text is where its first one is, though another is held out",
        "_Gathered.write",
        "np.logical_or.at(held_out, which, flags)",
        "held_out[:] = flags[first]",
        (f"{_TEXTS}::test_no_sentence_is_on_both_sides",),
    ),
    Fault(
        "sentences are held out by themselves",
        "_Gathered._add",
        "self._flags.append(held_out)",
        "self._flags.append(digest_is_held_out(content_digest(text), 0.4))",
        (f"{_TEXTS}::test_no_sentence_is_on_both_sides",),
    ),
    Fault(
        "an abbreviation ends a sentence",
        "split_sentences",
        "following.islower() or _SHORTENED.search(",
        "following.islower() or False and _SHORTENED.search(",
        ("tests/data/corpus/test_sentences.py",),
    ),
    Fault(
        "the vectors of a batch are those of other texts",
        "CachedEmbeddingTeacher._targets",
        "found = read(rows,",
        "found = read(rows[::-1],",
        (f"{_VECTORS}::test_it_has_the_teachers_vectors_in_16_bits",),
    ),
    Fault(
        "reduced vectors are not scaled to length 1 again",
        "CachedEmbeddingTeacher._targets",
        "tf.math.l2_normalize(found, 1) if self.normalize else found",
        "found",
        (f"{_VECTORS}::test_components_are_those_of_a_reduced_teacher",),
    ),
    Fault(
        "a student with words of its own reads its teacher's ids",
        "CachedEmbeddingTeacher.dataset",
        "examples if read_as is None else read_as",
        "examples",
        (f"{_VECTORS}::test_the_same_texts_for_another_tokenizer",),
    ),
    Fault(
        "a text is its own nearest neighbour",
        "nearest_others",
        "np.arange(len(vectors))[:, np.newaxis]",
        "-1",
        _NEIGHBOURS,
    ),
    Fault(
        "the row before the training is scored after it",
        "_Distillation.rows",
        'self._scorer.score("student before", student)',
        'self._scorer.score("student before", self._teacher.model)',
        (f"{_RUN}::test_its_rows_are_scores_of_its_models",),
    ),
)

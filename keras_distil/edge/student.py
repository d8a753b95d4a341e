"""Runs a LiteRT file: text in, answers out."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.edge import answers
from keras_distil.edge.answers import Answer
from keras_distil.edge.files import (
    BY_TOKEN,
    CARD_FILE,
    EMBEDDING_KIND,
    LITERT_KINDS,
    STATIC_KIND,
    TOKENIZER_FILE,
    Keys,
    Prompts,
    check_texts,
    load_tokenizer,
    name_file_in_errors,
    read_card,
)
from keras_distil.utils import token_roles
from keras_distil.utils.checks import check_count

MODEL_FILE = "student.tflite"
ANY_LENGTH = "any_length"

_CARD: Keys = {
    "kind": (str, None),
    "precision": (str, None),
    "labels": (list, str),
    "lengths": (list, int),
    "max_length": (int, None),
    "inputs": (list, str),
}
_OTHER_KINDS = {STATIC_KIND: "edge.StaticStudent"}


class Student:
    """A student that `export.export_litert` wrote: text in, answers out.

    Args:
        folder: the export's folder, or the `.tflite` file in it.
        num_threads: int >= 1.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of a later version.
        TypeError: if `num_threads` is not an integer.
    """

    def __init__(
        self, folder: str | os.PathLike, *, num_threads: int = 1
    ) -> None:
        check_count("num_threads", num_threads)
        path = Path(folder)
        self.folder = path.parent if path.suffix == ".tflite" else path
        model_path = path if path.suffix == ".tflite" else path / MODEL_FILE
        card_path = self.folder / CARD_FILE
        card = read_card(card_path, _CARD, LITERT_KINDS, _OTHER_KINDS)
        self.kind: str = card["kind"]
        self.precision: str = card["precision"]
        self.labels: list[str] = card["labels"]
        self.is_probability: bool = card.get("is_probability", False) is True
        self.lengths: list[int] = card["lengths"]
        self.max_length: int = card["max_length"]
        self._inputs: list[str] = card["inputs"]
        self._prompts = Prompts.from_card(card, card_path)
        self._runners = _runners(model_path, num_threads)
        self._check_signatures(model_path)

    def _check_signatures(self, path: Path) -> None:
        """Raises ValueError if the card belongs to another file."""
        names = [_signature_name(length) for length in self.lengths]
        if self.max_length not in self.lengths:
            names.append(ANY_LENGTH)
        for name in names:
            runner = self._runners.get(name)
            if runner is None or set(self._inputs) != set(
                runner.get_input_details()
            ):
                raise ValueError(
                    f"{path} has no signature {name} of "
                    f"{', '.join(self._inputs)[:200] or 'no inputs'}, which "
                    f"{CARD_FILE} names: the two belong to different exports."
                )

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the student's vocabulary."""
        return load_tokenizer(self.folder)

    def __call__(
        self, text: str, pair: str | None = None, *, top: int = 5
    ) -> Any:
        """Returns the answers for one text.

        Args:
            text: the text to read; for a span model, the question.
            pair: a second text; for a span model, the context.
            top: int >= 1, maximum number of answers.

        Returns:
            For a masked-LM model, a list of `Answer` for every mask token,
            such as [MASK]; for a classifier, a list of `Answer`, best first;
            for a token classifier one `Answer` for every token; for a span
            model the best parts of the context; for a regression a float,
            which is a probability if its checkpoint meant one; for an
            embedding model its vector, see `embed`.

        Raises:
            TypeError: if a text is not a string.
            ValueError: if a span model gets no context, or a question that
                leaves no space for one, or an embedding model two texts.
        """
        check_count("top", top)
        if self.kind == EMBEDDING_KIND:
            if pair is not None:
                raise ValueError(
                    "An embedding model reads one text at a time. Received: "
                    f"pair={pair!r:.60}."
                )
            return self.embed(text)[0]
        encoded = self._encode(text, pair)
        answer = getattr(self, f"_{self.kind}")
        return answer(self._outputs(encoded), encoded, pair or text, top)

    def entities(self, text: str) -> list[Answer]:
        """Finds the entities of a text; for a token classifier.

        A word has the label of its first token, and neighbouring words of one
        entity are one answer. Words are those of the tokenizer, for which a
        punctuation mark is one, too. If no label is `O`, the labels mark no
        entities, and every word is an answer.

        Args:
            text: the text to read.

        Returns:
            An `Answer` for each entity, in the order of the text: its type,
            the mean probability of its words' labels, and its place.

        Raises:
            TypeError: if the text is not a string.
            ValueError: if the model is of another kind.
        """
        if self.kind != "token_classification":
            raise ValueError(
                "`entities` is for token classifiers, and "
                f"{self.folder} holds a {self.kind} model: call it, "
                "student(text)."
            )
        encoded = self._encode(text, None)
        logits = self._outputs(encoded)["logits"]
        return answers.tag_entities(logits, encoded, text, self._names(logits))

    def reads_whole(self, text: str, pair: str | None = None) -> bool:
        """Checks whether a text, or a pair, is not cut.

        Args:
            text: the text to read; for a span model, the question.
            pair: a second text; for a span model, the context.
        """
        return not self._encode(text, pair).overflowing

    def _outputs(self, encoded: Any) -> dict[str, np.ndarray]:
        """Runs the model on one text."""
        found = self.run(_make_inputs(encoded))
        return {name: values[0] for name, values in found.items()}

    def embed(
        self, texts: str | Sequence[str], prompt_name: str | None = None
    ) -> np.ndarray:
        """Returns the vectors of texts; for an embedding model.

        Args:
            texts: a text, or a list of them.
            prompt_name: which of the model's prompts is put before each; None
                for its default prompt, if there is one.

        Returns:
            float32, (texts, dimension).

        Raises:
            TypeError: if a text is not a string.
            ValueError: if a text is empty, there are none, the prompt is
                unknown, or the model is of another kind.
        """
        if self.kind != EMBEDDING_KIND:
            raise ValueError(
                f"`embed` is for embedding models, and {self.folder} holds a "
                f"{self.kind} model: call it, student(text)."
            )
        rows = []
        for text in self._prompts.join(check_texts(texts), prompt_name):
            inputs = _make_inputs(self._encode(text, None))
            rows.append(self.run(inputs)["embedding"])
        return np.concatenate(rows)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the outputs for token ids.

        Args:
            inputs: "token_ids" and "padding_mask", int32, (batch, length),
                and "segment_ids" if the encoder has them.

        Returns:
            float32 by name, with the length of the inputs.

        Raises:
            ValueError: if an input is missing or too long.
        """
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise ValueError(
                f"`inputs` must hold {', '.join(self._inputs)}. Received: "
                f"{', '.join(inputs)}."
            )
        batch, length = np.shape(inputs["token_ids"])
        name, padded_length = self._signature(length)
        rows = []
        for row in range(batch):
            fed = {
                key: padded(inputs[key][row], padded_length)
                for key in self._inputs
            }
            try:
                outputs = self._runners[name](**fed)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"The model in {self.folder} cannot read these inputs: "
                    f"{' '.join(str(error).split()):.200}"
                ) from error
            # The runner's arrays are overwritten by the next call.
            rows.append(
                {key: np.array(value) for key, value in outputs.items()}
            )
        whole = {
            key: np.concatenate([part[key] for part in rows]) for key in rows[0]
        }
        if self.kind not in BY_TOKEN:
            return whole
        return {key: values[:, :length] for key, values in whole.items()}

    def _signature(self, length: int) -> tuple[str, int]:
        """Returns the signature for a length, and its input length."""
        for fitting in self.lengths:
            if fitting >= length:
                return _signature_name(fitting), fitting
        if ANY_LENGTH in self._runners and length <= self.max_length:
            return ANY_LENGTH, length
        raise ValueError(
            f"The student takes up to {self.max_length} tokens. Received: "
            f"{length}."
        )

    def _encode(self, text: str, pair: str | None) -> Any:
        tokenizer = self.tokenizer
        is_span = self.kind == "span"
        with name_file_in_errors(self.folder / TOKENIZER_FILE):
            if is_span:
                self._check_question(text, pair)
            # If a question and its context are too long, the context is cut.
            tokenizer.enable_truncation(
                self.max_length,
                strategy="only_second" if is_span else "longest_first",
            )
            encoded = tokenizer.encode(text, pair)
        if is_span and 1 not in encoded.sequence_ids:
            raise ValueError(
                "The context must have a token to answer with. Received: "
                f"{pair!r:.80}."
            )
        return encoded

    @functools.cached_property
    def _mask_id(self) -> int:
        """The id that stands for a word to fill in."""
        token = token_roles.find_role(self.tokenizer, "mask_token")
        if token is None:
            raise ValueError(
                f"{self.folder / TOKENIZER_FILE} has no mask token, so there "
                "is no word to fill in. Export the student again, with a "
                "tokenizer that has one."
            )
        return self.tokenizer.token_to_id(token)

    def _check_question(self, question: str, context: str | None) -> None:
        """Raises ValueError if no space is left for a context."""
        if context is None:
            raise ValueError(
                "A span model reads a question and its context: pass both, "
                "student(question, context). Received: no context."
            )
        self.tokenizer.no_truncation()
        tokens = len(self.tokenizer.encode(question, add_special_tokens=False))
        special = self.tokenizer.num_special_tokens_to_add(True)
        if tokens + special >= self.max_length:
            raise ValueError(
                f"The question has {tokens} tokens. The student takes "
                f"{self.max_length}, of which {special} are special and at "
                "least one is the context's: shorten the question to "
                f"{self.max_length - special - 1}."
            )

    def _masked_lm(
        self, outputs: Mapping[str, np.ndarray], encoded: Any, _: str, top: int
    ) -> list[list[Answer]]:
        mask = self._mask_id
        choices = []
        for place, token_id in enumerate(encoded.ids):
            if token_id == mask:
                start, end = encoded.offsets[place]
                likely = answers.softmax(outputs["logits"][place])
                choices.append(
                    [
                        Answer(self._spell(index), score, start, end)
                        for index, score in answers.best_of(likely, top)
                    ]
                )
        return choices

    def _spell(self, token_id: int) -> str:
        return token_roles.spell(self.tokenizer, token_id) or ""

    def _classification(
        self, outputs: Mapping[str, np.ndarray], _: Any, __: str, top: int
    ) -> list[Answer]:
        logits = outputs["logits"]
        return answers.choose_classes(
            answers.softmax(logits), self._names(logits), top
        )

    def _multi_label(
        self, outputs: Mapping[str, np.ndarray], _: Any, __: str, top: int
    ) -> list[Answer]:
        logits = outputs["logits"]
        return answers.choose_classes(
            answers.sigmoid(logits), self._names(logits), top
        )

    def _token_classification(
        self, outputs: Mapping[str, np.ndarray], encoded: Any, *_: Any
    ) -> list[Answer]:
        logits = outputs["logits"]
        return answers.tag_tokens(logits, encoded, self._names(logits))

    def _span(
        self, outputs: Mapping[str, np.ndarray], encoded: Any, *rest: Any
    ) -> list[Answer]:
        return answers.find_spans(outputs, encoded, *rest)

    def _regression(self, outputs: Mapping[str, np.ndarray], *_: Any) -> float:
        score = outputs["score"]
        return float(answers.sigmoid(score) if self.is_probability else score)

    def _names(self, logits: np.ndarray) -> list[str]:
        """Returns the names of the classes that logits are of."""
        if len(self.labels) < logits.shape[-1]:
            raise ValueError(
                f"{self.folder / CARD_FILE} has {len(self.labels)} `labels`, "
                "fewer than the model has classes."
            )
        return self.labels


def _signature_name(length: int) -> str:
    return f"length_{length}"


def _runners(path: Path, num_threads: int) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        names = interpreter.get_signature_list()
        return {name: interpreter.get_signature_runner(name) for name in names}
    except (ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        raise ValueError(
            f"{path} is not a LiteRT model, or is damaged: "
            f"{lines[0] if lines else 'no reason given'}"
        ) from error


def _make_inputs(encoded: Any) -> dict[str, np.ndarray]:
    return {
        "token_ids": np.array([encoded.ids], np.int32),
        "padding_mask": np.array([encoded.attention_mask], np.int32),
        "segment_ids": np.array([encoded.type_ids], np.int32),
    }


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """Adds zeros, which are padding in every input.

    Args:
        values: int, (tokens,), not more than `length`.
        length: int, length of the result.

    Returns:
        int32, (1, length).
    """
    row = np.zeros((1, length), np.int32)
    row[0, : len(values)] = values
    return row

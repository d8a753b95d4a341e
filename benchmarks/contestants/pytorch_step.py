"""The method of DistilBERT's authors in PyTorch, on Hugging Face's models.

Written from its description: logits of teacher and student at every position,
from which a mask then selects some.
"""

import contextlib
import itertools
import os

import torch
import transformers
from torch.nn import functional

import contestants
from contestants.shapes import BATCHES, Data, Shape, make_data
from contestants.turns import Turns

Tensor = torch.Tensor


def make_models(
    shape: Shape,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedModel]:
    """Makes teacher and student with random weights."""
    torch.manual_seed(0)
    sizes = shape.sizes
    teacher = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.wide,
            max_position_embeddings=sizes.positions,
        )
    )
    student = transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(
            vocab_size=sizes.vocabulary,
            dim=sizes.width,
            n_layers=sizes.student_layers,
            n_heads=sizes.heads,
            hidden_dim=sizes.wide,
            max_position_embeddings=sizes.positions,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    return teacher.eval().requires_grad_(False), student.train()


def make_optimizer(
    student: transformers.PreTrainedModel,
) -> torch.optim.Optimizer:
    """Makes AdamW with PyTorch's defaults."""
    return torch.optim.AdamW(student.parameters(), lr=contestants.LEARNING_RATE)


def make_batch(data: Data, index: int) -> dict[str, Tensor]:
    """Makes a batch in these models' form; -100 means no label."""
    masked = torch.from_numpy(data.masked[index])
    targets = torch.from_numpy(data.targets[index]).long()
    return {
        "input_ids": torch.from_numpy(data.token_ids[index]).long(),
        "attention_mask": torch.from_numpy(data.padding_mask[index]).long(),
        "labels": targets.masked_fill(~masked, -100),
    }


def train_step(
    teacher: transformers.PreTrainedModel,
    student: transformers.PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    *,
    positions: str = "all",
    precision: str = "float32",
) -> dict[str, Tensor]:
    """Runs one update of the student.

    Returns:
        The losses before the update, without their weights, by name.
    """
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "output_hidden_states": True,
    }
    real = batch["attention_mask"].bool()
    soft = real if positions == "all" else batch["labels"] > -1
    temperature = contestants.TEMPERATURE
    with _autocast(precision):
        student_outputs = student(**inputs)
        with torch.no_grad():
            teacher_outputs = teacher(**inputs)
        student_logits = _select(student_outputs.logits, soft)
        teacher_logits = _select(teacher_outputs.logits, soft)
        divergence = functional.kl_div(
            functional.log_softmax(student_logits / temperature, dim=-1),
            functional.softmax(teacher_logits / temperature, dim=-1),
            reduction="batchmean",
        )
        crossentropy = functional.cross_entropy(
            student_outputs.logits.view(-1, student_outputs.logits.size(-1)),
            batch["labels"].view(-1),
            ignore_index=-100,
        )
        student_states = _select(student_outputs.hidden_states[-1], real)
        teacher_states = _select(teacher_outputs.hidden_states[-1], real)
        distance = functional.cosine_embedding_loss(
            student_states, teacher_states, torch.ones(len(student_states))
        )
        divergence = divergence * temperature**2
        loss = (
            contestants.MLM_WEIGHT * crossentropy
            + contestants.SOFT_TARGET_WEIGHT * divergence
            + contestants.COSINE_WEIGHT * distance
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), contestants.CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return {"mlm": crossentropy, "soft_target": divergence, "cosine": distance}


def _select(values: Tensor, mask: Tensor) -> Tensor:
    """Returns (tokens that the mask keeps, last axis)."""
    mask = mask.unsqueeze(-1).expand_as(values)
    return torch.masked_select(values, mask).view(-1, values.size(-1))


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Trains in turns."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    teacher, student = make_models(shape)
    optimizer = make_optimizer(student)
    data = make_data(shape)
    batches = [make_batch(data, index) for index in range(BATCHES)]
    for batch in itertools.cycle(batches):
        turns.before_step()
        train_step(
            *(teacher, student, optimizer, batch),
            positions=shape.positions,
            precision=precision,
        )


def _autocast(precision: str) -> contextlib.AbstractContextManager:
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)

"""The triple loss and every gradient against torch and transformers."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import losses
from keras_distil.models.architectures import FAMILIES
from keras_distil.training.objectives import MaskedLMBatch, MaskedLMObjective

pytestmark = pytest.mark.peer

TEMPERATURE = 2.0
# KerasHub's embeddings have an epsilon of 1e-12, as the checkpoints have.
BERT, DISTILBERT = (FAMILIES[x].weights for x in ("bert", "distilbert"))
THEIR_BERT = {
    "vocab_size": toy.VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
}
THEIR_DISTILBERT = {
    "vocab_size": toy.VOCABULARY,
    "dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 12,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}


def to_torch(table, model, values):
    """Arrays by Keras path to tensors by the peer's name."""
    torch = pytest.importorskip("torch")
    rules = table.rules(model.backbone.num_layers, pooler=False, masked_lm=True)
    return {
        rule.hugging_face: torch.tensor(
            np.ascontiguousarray(
                rule.layout.to_hugging_face(np.array(values[rule.keras]))
            )
        )
        for rule in rules
    }


def make_peer(name, config, table, model):
    """Our weights in the peer's model."""
    transformers = pytest.importorskip("transformers")
    settings = getattr(transformers, f"{name}Config")(**config)
    peer = getattr(transformers, f"{name}ForMaskedLM")(settings)
    weights = to_torch(table, model, toy.weights_of(model))
    result = peer.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    # Only the tied decoder, which is the word embeddings, comes from them.
    assert all(
        "decoder" in key or "vocab_projector" in key
        for key in result.missing_keys
    )
    return peer.eval()


def their_losses(teacher, student, batch):
    """Computes mlm, soft and cosine as in the authors' training script."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, token_ids, masked = batch
    inputs = {
        "input_ids": torch.tensor(x["token_ids"]).long(),
        "attention_mask": torch.tensor(x["padding_mask"]).long(),
        "output_hidden_states": True,
    }
    with torch.no_grad():
        teacher_outputs = teacher(**inputs)
    outputs = student(**inputs)
    labels = np.where(masked > 0, token_ids, -100)
    mlm = functional.cross_entropy(
        outputs.logits.reshape(-1, toy.VOCABULARY),
        torch.tensor(labels).long().reshape(-1),
        ignore_index=-100,
    )
    real = torch.tensor(x["padding_mask"]).bool()
    soft = functional.kl_div(
        functional.log_softmax(outputs.logits[real] / TEMPERATURE, dim=-1),
        functional.softmax(teacher_outputs.logits[real] / TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    states = outputs.hidden_states[-1][real]
    cosine = torch.nn.CosineEmbeddingLoss()(
        states,
        teacher_outputs.hidden_states[-1][real],
        torch.ones(len(states)),
    )
    return mlm, soft * TEMPERATURE**2, cosine


def test_the_triple_loss():
    torch = pytest.importorskip("torch")
    teacher = toy.make_teacher()
    student = toy.make_student(teacher)
    batch = toy.make_batch()
    peer = make_peer("DistilBert", THEIR_DISTILBERT, DISTILBERT, student)
    theirs = their_losses(
        make_peer("Bert", THEIR_BERT, BERT, teacher), peer, batch
    )
    (2.0 * theirs[0] + 5.0 * theirs[1] + 1.0 * theirs[2]).backward()

    objective = MaskedLMObjective(
        teacher,
        student,
        losses.triple_loss(2.0, 5.0, 1.0, temperature=TEMPERATURE),
    )
    named = MaskedLMBatch.from_triple(batch)
    sizes = objective.denominators(named)
    sums, gradients = objective.compute_gradients(named, sizes, training=True)
    for loss, size, value in zip(
        objective.losses, ("masked", "tokens", "tokens"), theirs, strict=True
    ):
        ours = float(sums[f"{loss.name}_sum"] / sizes[size])
        # Two float32 networks whose logits agree to some 1e-6.
        assert ours == pytest.approx(value.item(), rel=2e-5), loss.name
    gradients = to_torch(
        DISTILBERT,
        student,
        {
            variable.path: tf.convert_to_tensor(gradient).numpy()
            for variable, gradient in zip(
                objective.variables, gradients, strict=True
            )
        },
    )
    parameters = dict(peer.named_parameters())
    # The tied matrix goes by the name of the embeddings.
    assert set(parameters) == set(gradients)
    for name, ours in gradients.items():
        # Norm of the difference: a tensor's entries cancel to different
        # degrees. The key's bias has no gradient but rounding.
        difference = torch.linalg.norm(ours - parameters[name].grad).item()
        scale = torch.linalg.norm(parameters[name].grad).item()
        assert difference <= 1e-4 * scale + 1e-6, name

"""One process of the trainings that `test_distribution.py` starts.

python worker.py FOLDER STEPS TRAININGS

TRAININGS is a JSON list, run one after another, because starting the process
takes long. Each has a folder in FOLDER for weights, the files of this worker
and, in a folder that all share, training states.
"""

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy


def main(folder, steps, trainings):
    """Trains under the strategy set by TF_CONFIG and REPLICAS."""
    replicas = int(os.environ.get("REPLICAS", "1"))
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpus[0], [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    tf.config.experimental.enable_op_determinism()
    strategies = {1: tf.distribute.get_strategy()}
    if "TF_CONFIG" in os.environ:
        if replicas > 1:
            use_all_cpus(replicas)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        workers = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
        assert strategy.num_replicas_in_sync == replicas * len(workers)
        strategies = {replicas: strategy}
        check_the_chief_is_followed(strategy)
    elif replicas > 1:
        strategies[replicas] = tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(replicas)]
        )
    gc.freeze()  # as conftest.py does
    for training in trainings:
        name, count = training.pop("name"), training.pop("replicas")
        train(folder / name, steps, strategies[count], **training)


def check_the_chief_is_followed(strategy):
    from keras_distil.training import distribution

    index, _ = distribution.worker_index()
    with strategy.scope():
        assert distribution.take_from_chief(2**40 + 7 + 11 * index) == 2**40 + 7


def train(
    folder, steps, strategy, *, micro_batches, optimizer, kill_at, without
):
    """Runs one training, or dies after the update `kill_at`."""
    import keras
    from toy import make_student, make_teacher

    from keras_distil import Distiller, callbacks, losses

    # As if the Distiller did not repair this method of Keras.
    if without is not None:
        delattr(Distiller, without)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        teacher = make_teacher()
        distiller = Distiller(
            teacher, make_student(teacher), losses.triple_loss()
        )
        made = {
            "sgd": keras.optimizers.SGD(0.05),
            "clipped": keras.optimizers.SGD(0.05, momentum=0.9),
        }[optimizer]
        distiller.compile(
            made,
            micro_batches=micro_batches,
            clip_norm=0.5 if optimizer == "clipped" else None,
        )

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 == kill_at:
                os._exit(9)

    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    index = task.get("index", 0)
    mine = folder / f"worker{index}"
    folder.mkdir(exist_ok=True)
    history = distiller.fit(
        batches(),
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[
            Kill(),
            callbacks.TensorBoard(mine / "logs"),
            callbacks.MetricsLog(mine / "metrics.jsonl", stage="distill"),
            callbacks.TrainingState(folder / "states", every_steps=2),
        ],
    ).history
    scores = distiller.evaluate(batches(steps=3), verbose=0, return_dict=True)
    np.savez(
        folder / f"result{index}.npz",
        *[np.array(v.numpy()) for v in distiller.student.trainable_variables],
        logs=np.array(
            [history[name][0] for name in sorted(history)]
            + [scores[name] for name in sorted(scores)]
        ),
    )


def use_all_cpus(count):
    """Makes TensorFlow use a worker's CPUs as it uses GPUs.

    Without GPUs it uses only the first CPU, and has no option for more.
    """

    def local_devices(self, resolver, worker_device):
        names = [f"{worker_device}/device:CPU:{i}" for i in range(count)]
        return tuple(names), "CPU"

    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    extended._initialize_local_devices = local_devices


def batches(steps=None):
    """Sequences of very unequal length: most of the padding in one half."""
    from toy import VOCABULARY

    from keras_distil import data

    generator = np.random.default_rng(0)
    sequences = generator.integers(5, VOCABULARY, (8, 10))
    for row in range(4, 8):
        sequences[row, 3 + row % 2 :] = 0
    special = data.SpecialTokens(
        pad_id=0, unknown_id=1, cls_id=2, sep_id=3, mask_id=4
    )
    return data.masked_lm_dataset(
        sequences.astype("uint16"),
        special=special,
        vocabulary_size=VOCABULARY,
        batch_size=8,
        seed=1,
        steps=steps,
        rate=0.3,
        shuffle=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))

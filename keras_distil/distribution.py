"""Which devices and workers a run uses, and who of the workers writes."""

import json
import os
from typing import Any

_VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["a:12345", "b:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def name_workers(addresses: str, index: int) -> None:
    """Tells TensorFlow the workers, as the variable TF_CONFIG would.

    Args:
        addresses: "host:port" of every worker, separated by commas, the same
            in all of them.
        index: int, the place of this process among them; 0 is the chief.

    Raises:
        ValueError: if an address is no "host:port", occurs twice, or `index`
            is the place of none.
    """
    workers = [address.strip() for address in addresses.split(",")]
    for address in workers:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(
                "`--workers` must be host:port,host:port,... "
                f"Received: {address!r}."
            )
    if len(set(workers)) < len(workers):
        raise ValueError(
            f"`--workers` names an address twice. Received: {addresses}."
        )
    if not 0 <= index < len(workers):
        raise ValueError(
            f"`--worker-index` must be from 0 to {len(workers) - 1}, the "
            f"place of this process in `--workers`. Received: {index}."
        )
    os.environ[_VARIABLE] = json.dumps(
        {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
    )


def worker_index() -> tuple[int, int]:
    """The place of this process among its workers, and how many there are.

    Raises:
        ValueError: if TF_CONFIG is set and does not say it.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return 0, 1
    try:
        found = json.loads(text)
        cluster = found["cluster"]
        count = len(cluster["worker"])
        if "chief" in cluster:
            count += 1
        index = int(found["task"]["index"])
        if found["task"]["type"] == "worker" and "chief" in cluster:
            index += 1
        if not 0 <= index < count:
            raise ValueError(f"index {index} of {count} workers")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The environment variable {_VARIABLE} cannot be read ({error}). "
            f"It must look like {_EXAMPLE}."
        ) from error
    return index, count


def make_strategy(name: str) -> Any:
    """The strategy whose scope a run is made in.

    Args:
        name: "none", "mirrored" (all devices of this machine),
            "multi_worker" (all workers), or "auto": the last if there are
            several workers, else the second if there are several GPUs.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: if several workers are asked for and there are none.
    """
    import tensorflow as tf

    workers = worker_index()[1]
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        name = "mirrored" if several else "none"
        if workers > 1:
            name = "multi_worker"
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if workers < 2:
        raise ValueError(
            "`distill.strategy: multi_worker` needs workers: give --workers "
            f"and --worker-index, or set {_VARIABLE}."
        )
    return tf.distribute.MultiWorkerMirroredStrategy()

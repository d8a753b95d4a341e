"""The devices and workers of a run."""

import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_distil.utils import quiet

# How long a worker waits for the others at its start. TensorFlow's limit is an
# hour.
START_TIMEOUT_S = 300
# A worker that is silent for this long is lost. The end of a process is noticed
# at once; this is for machines that vanish or hang.
SILENCE_TIMEOUT_S = 60
# Slurm names hosts but no ports. Jobs on the same hosts get different ports,
# counted from this one: ten each, for the consecutive tasks on a host.
SLURM_PORT = 12345
_SLURM_JOBS = 2000
_SLURM_PORTS_PER_JOB = 10

# State of a listening socket in /proc/net/tcp.
_LISTENS = "0A"

_VARIABLE = "TF_CONFIG"
_SLURM_COUNT = "SLURM_STEP_NUM_TASKS"
# TensorFlow's words for a worker that was started twice.
_SECOND = "different incarnation"
_SLURM_REMEDY = (
    "Start with `srun`, name the workers with --workers and --worker-index, or "
    "unset the variables of Slurm."
)
_EXAMPLE = (
    '{"cluster": {"worker": ["a:12345", "b:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def name_workers(addresses: str, index: int) -> None:
    """Sets TF_CONFIG for these workers.

    Args:
        addresses: "host:port" of every worker, separated by commas, the same
            in all of them.
        index: int, index of this process among them; 0 is the chief.

    Raises:
        ValueError: if an address is not "host:port" or occurs twice, or
            `index` is out of range.
    """
    workers = [address.strip() for address in addresses.split(",")]
    _check_addresses(workers, "`--workers`")
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


def _check_addresses(addresses: list[str], where: str) -> None:
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(
                f"{where} must name workers as host:port. "
                f"Received: {address!r}."
            )
    if len(set(addresses)) < len(addresses):
        raise ValueError(
            f"{where} names an address twice. Received: {', '.join(addresses)}."
        )


def find_workers() -> None:
    """Sets the workers from Slurm, unless TF_CONFIG names them.

    Every task of this process's step is a worker. Anything that is not a step
    of several tasks, such as a batch script before its first `srun`, is left
    alone.

    The index of a task is computed from its node and its place there, because
    Slurm's ranks need not follow the nodes (`srun --distribution`).

    Raises:
        ValueError: if Slurm's variables are incomplete or contradictory.
    """
    if os.environ.get(_VARIABLE) or _SLURM_COUNT not in os.environ:
        return
    count = _slurm_number(_SLURM_COUNT)
    if count < 2:
        return
    hosts, tasks = _slurm_nodes()
    node = _slurm_number("SLURM_NODEID")
    place = _slurm_number("SLURM_LOCALID")
    if (
        len(hosts) != len(tasks)
        or sum(tasks) != count
        or node >= len(tasks)
        or place >= tasks[node]
    ):
        raise ValueError(
            f"Slurm's variables contradict each other: {count} tasks, "
            f"{tasks} of them on {hosts}, this one number {place} on node "
            f"{node}. {_SLURM_REMEDY}"
        )
    addresses = [
        f"{host}:{_slurm_port() + number}"
        for host, here in zip(hosts, tasks, strict=True)
        for number in range(here)
    ]
    name_workers(",".join(addresses), sum(tasks[:node]) + place)


def _slurm_port() -> int:
    """Returns the first port of this job and step, equal in all its tasks."""
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    step = int(os.environ.get("SLURM_STEP_ID", "0"))
    return SLURM_PORT + (job + step) % _SLURM_JOBS * _SLURM_PORTS_PER_JOB


def _slurm_nodes() -> tuple[list[str], list[int]]:
    """Returns the hosts of this step, and the number of tasks on each."""
    nodes = _slurm_value("SLURM_STEP_NODELIST")
    tasks = _slurm_value("SLURM_STEP_TASKS_PER_NODE")
    quiet.import_tensorflow(errors=False)
    from keras_distil.utils import private_api

    try:
        return private_api.expand_slurm_nodes(nodes, tasks)
    except ValueError as error:
        reason = str(error).rstrip(": ")
        raise ValueError(
            f"Slurm's variables cannot be read: {reason}. {_SLURM_REMEDY}"
        ) from error


def _slurm_number(name: str) -> int:
    value = _slurm_value(name)
    if not value.isdecimal():
        raise ValueError(
            f"The environment variable {name} must be a number. Received: "
            f"{value!r}. {_SLURM_REMEDY}"
        )
    return int(value)


def _slurm_value(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(
            f"{_SLURM_COUNT} says that this is one of several tasks, but "
            f"{name} is not set. {_SLURM_REMEDY}"
        )
    return value


def worker_index() -> tuple[int, int]:
    """Returns the index of this process, and the number of workers.

    Raises:
        ValueError: if TF_CONFIG is set but invalid.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return 0, 1
    try:
        config = json.loads(text)
        cluster = config["cluster"]
        if config["task"]["type"] not in ("chief", "worker"):
            raise ValueError("a task must be of type chief or worker")
        addresses = [*cluster.get("chief", []), *cluster["worker"]]
        _check_addresses(addresses, "the cluster")
        count = len(addresses)
        index = int(config["task"]["index"])
        if config["task"]["type"] == "worker" and "chief" in cluster:
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
    """Returns the distribution strategy of a run.

    Args:
        name: "none", "mirrored" (all devices of this machine),
            "multi_worker" (all workers), or "auto": the last if there are
            several workers, else the second if there are several GPUs.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: if several workers are required and there are none.
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
            f"and --worker-index, set {_VARIABLE}, or start with Slurm's srun."
        )
    return _make_multi_worker()


def _make_multi_worker() -> Any:
    """Makes a MultiWorkerMirroredStrategy that does not wait forever."""
    import tensorflow as tf

    from keras_distil.utils import private_api

    private_api.configure_coordination(
        register_timeout_ms=START_TIMEOUT_S * 1000,
        heartbeat_timeout_ms=SILENCE_TIMEOUT_S * 1000,
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise RuntimeError(_start_message(str(error))) from error


def _start_message(error: str) -> str:
    index, count = worker_index()
    if "Could not start gRPC server" in error:
        return (
            f"Worker {index} cannot listen at {_addresses()[index]}: is there "
            "another one with the same index, or another program at this port?"
        )
    # The chief knows which workers are missing, and tells the others.
    missing = re.search(r"timed out task names:\s*((?:/job:\S+\s*)*)", error)
    named = _named_workers(missing[1]) if missing else [0] if index else []
    who = " and ".join(_describe_worker(number) for number in named)
    return (
        f"Not all of the {count} workers started within {START_TIMEOUT_S} s"
        f"{f': no answer from {who}' if who else ''}. Each must be started "
        "with the same list of addresses and a different index, and must reach "
        "the others at these addresses."
    )


def take_from_chief(value: int) -> int:
    """Returns the chief's value in every worker.

    All workers must call it, in the scope of their strategy. With a single
    process it returns `value`.

    Args:
        value: int, below 2^53 in size; used in the chief alone.
    """
    index, count = worker_index()
    if count < 2:
        return value
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    own = float(value) if index == 0 else 0.0

    @tf.function
    def add() -> Any:
        values = strategy.run(lambda: tf.constant(own, tf.float64))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    replicas = strategy.num_replicas_in_sync // count
    return round(float(add()) / replicas)


def listening_addresses() -> list[str]:
    """Returns the TCP addresses at which this process listens, on Linux.

    Returns:
        "host:port" of each, sorted; empty if the system does not say.
    """
    inodes = set()
    with contextlib.suppress(OSError):
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link))
    addresses = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            lines = Path("/proc/self/net", table).read_text().splitlines()
            for line in lines[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in inodes:
                    addresses.add(_readable_address(fields[1], family))
    return sorted(addresses)


def _readable_address(address: str, family: socket.AddressFamily) -> str:
    """Decodes an address of /proc/net, 32-bit words in native byte order."""
    host, port = address.split(":")
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    readable = socket.inet_ntop(family, packed)
    if family == socket.AF_INET6:
        readable = f"[{readable}]"
    return f"{readable}:{int(port, 16)}"


def describe_open_ports() -> str | None:
    """Returns a line on a worker's open ports; None for a single process."""
    index, count = worker_index()
    if count < 2 or _VARIABLE not in os.environ:
        return None
    where = ", ".join(listening_addresses()) or _addresses()[index]
    return (
        f"Worker {index} listens at {where} without authentication: whoever "
        "reaches it can run code here. Use a private network (SECURITY.md)."
    )


@contextlib.contextmanager
def report_lost_workers() -> Iterator[None]:
    """Turns TensorFlow's error for a lost worker into one clear line.

    With a single worker nothing changes.

    Raises:
        RuntimeError: if the connection to another worker broke.
    """
    import tensorflow as tf

    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
    ) as error:
        if worker_index()[1] < 2:
            raise
        raise RuntimeError(
            f"{_lost_message(str(error))} Finished work is kept: start all "
            "workers again with the same commands, and they continue from the "
            "last training state."
        ) from error


def _lost_message(error: str) -> str:
    named = _named_workers(error)
    if _SECOND in error:
        who = _describe_worker((named or [worker_index()[0]])[0])
        return f"A second process started as {who} during the run."
    who = _describe_worker(named[0]) if named else "another worker"
    return (
        f"A worker is lost: the connection to {who} broke. The output of that "
        "worker may say why."
    )


def _named_workers(text: str) -> list[int]:
    """Returns the indices of other workers in a message of TensorFlow."""
    chiefs = len(_cluster().get("chief", []))
    places = [
        int(task) + (chiefs if job == "worker" else 0)
        for job, task in re.findall(r"/job:(\w+)/replica:0/task:(\d+)", text)
    ]
    own = worker_index()[0]
    return [place for place in dict.fromkeys(places) if place != own]


def _describe_worker(place: int) -> str:
    return f"worker {place} ({_addresses()[place]})"


def _addresses() -> list[str]:
    return [*_cluster().get("chief", []), *_cluster()["worker"]]


def _cluster() -> dict[str, list[str]]:
    return json.loads(os.environ[_VARIABLE])["cluster"]

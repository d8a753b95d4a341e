"""Which devices and workers a run uses, and who of the workers writes."""

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

# How long a worker waits at its start for the others. TensorFlow's own limit
# is an hour.
START_TIMEOUT_S = 300
# A worker that has been silent for so long is lost. A process that ends is
# noticed at once; this is for a machine that vanishes or hangs.
SILENCE_TIMEOUT_S = 60
# Slurm names hosts and no ports. Jobs on the same hosts get ports of their own,
# counted from this one: ten each, for the tasks of a host one after the other.
SLURM_PORT = 12345
_SLURM_JOBS = 2000
_SLURM_PORTS_PER_JOB = 10

# State of a socket in /proc/net/tcp.
_LISTENS = "0A"

_VARIABLE = "TF_CONFIG"
_SLURM_COUNT = "SLURM_STEP_NUM_TASKS"
# What TensorFlow says of a worker that was started twice.
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
    """Takes the workers from Slurm, unless TF_CONFIG names them.

    Every task of the step that this process belongs to is a worker. What is
    no step of several tasks, such as a batch script before its first `srun`,
    is left alone.

    The place of a task is computed from its node and its place there, as the
    ranks of Slurm need not follow the nodes (`srun --distribution`).

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
    """The first port of this job and step; the same in all its tasks."""
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    step = int(os.environ.get("SLURM_STEP_ID", "0"))
    return SLURM_PORT + (job + step) % _SLURM_JOBS * _SLURM_PORTS_PER_JOB


def _slurm_nodes() -> tuple[list[str], list[int]]:
    """The hosts of this step, and the number of tasks on each."""
    nodes = _slurm_value("SLURM_STEP_NODELIST")
    tasks = _slurm_value("SLURM_STEP_TASKS_PER_NODE")
    quiet.import_tensorflow(errors=False)
    # `SlurmClusterResolver` itself needs GPUs, sorts "n10" before "n2" while
    # Slurm does not, and takes the ranks to follow the hosts.
    from tensorflow.python.distribute.cluster_resolver import (
        slurm_cluster_resolver as slurm,
    )

    try:
        return slurm.expand_hostlist(nodes), slurm.expand_tasks_per_node(tasks)
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
            f"{_SLURM_COUNT} says that this is a task of several, but {name} "
            f"is not set. {_SLURM_REMEDY}"
        )
    return value


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
        if found["task"]["type"] not in ("chief", "worker"):
            raise ValueError("a task must be of type chief or worker")
        addresses = [*cluster.get("chief", []), *cluster["worker"]]
        _check_addresses(addresses, "the cluster")
        count = len(addresses)
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
            f"and --worker-index, set {_VARIABLE}, or start with Slurm's srun."
        )
    return _make_multi_worker()


def _make_multi_worker() -> Any:
    """MultiWorkerMirroredStrategy that does not wait for ever.

    It configures the coordination service if nobody has done so, but without
    a limit below an hour, and without waiting for all: the first sum over
    workers would wait for one that never comes.
    """
    import tensorflow as tf
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.distribute import multi_worker_util
    from tensorflow.python.eager import context

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = multi_worker_util.normalize_cluster_spec(resolver.cluster_spec())
    service = context.context()
    service.configure_coordination_service(
        service_type="standalone",
        service_leader=multi_worker_util.coordination_leader(cluster),
        cluster_register_timeout_in_ms=START_TIMEOUT_S * 1000,
        heartbeat_timeout_in_ms=SILENCE_TIMEOUT_S * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(
                name=job, num_tasks=cluster.num_tasks(job)
            )
            for job in ("chief", "worker")
            if job in cluster.jobs
        ],
    )
    service.coordination_service.cluster_register_with_barrier = True
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
    # The chief knows who is missing, and tells those who are there.
    missing = re.search(r"timed out task names:\s*((?:/job:\S+\s*)*)", error)
    named = _named_workers(missing[1]) if missing else [0] if index else []
    who = " and ".join(_described(number) for number in named)
    return (
        f"Not all of the {count} workers came up within {START_TIMEOUT_S} s"
        f"{f': no answer from {who}' if who else ''}. Each must be started, "
        "with the same list of addresses and an index of its own, and reach "
        "the others at these addresses."
    )


def listening_addresses() -> list[str]:
    """The TCP addresses at which this process listens, as Linux tells them.

    Returns:
        "host:port" of each, sorted; none where the system does not say.
    """
    own = set()
    with contextlib.suppress(OSError):
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(os.readlink(link))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            lines = Path("/proc/self/net", table).read_text().splitlines()
            for line in lines[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in own:
                    found.add(_readable_address(fields[1], family))
    return sorted(found)


def _readable_address(address: str, family: socket.AddressFamily) -> str:
    """An address of /proc/net: words of 32 bits in the machine's order."""
    host, port = address.split(":")
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    shown = socket.inet_ntop(family, packed)
    if family == socket.AF_INET6:
        shown = f"[{shown}]"
    return f"{shown}:{int(port, 16)}"


def open_ports_told() -> str | None:
    """One line on the ports of a worker; None for a single process."""
    index, count = worker_index()
    if count < 2 or _VARIABLE not in os.environ:
        return None
    where = ", ".join(listening_addresses()) or _addresses()[index]
    return (
        f"Worker {index} listens at {where} without authentication: whoever "
        "reaches it can run code here. Use a private network (SECURITY.md)."
    )


@contextlib.contextmanager
def lost_workers_told() -> Iterator[None]:
    """Turns what TensorFlow raises for a lost worker into one clear line.

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
            f"{_lost_message(str(error))} What was finished is kept: start "
            "all workers again with the same commands, and they go on from "
            "the last training state."
        ) from error


def _lost_message(error: str) -> str:
    named = _named_workers(error)
    if _SECOND in error:
        who = _described((named or [worker_index()[0]])[0])
        return f"A second process came up as {who} during the run."
    who = _described(named[0]) if named else "another worker"
    return (
        f"A worker is lost: the connection to {who} broke, whose own output "
        "may say why."
    )


def _named_workers(text: str) -> list[int]:
    """The places of other workers that a message of TensorFlow names."""
    chiefs = len(_cluster().get("chief", []))
    places = [
        int(task) + (chiefs if job == "worker" else 0)
        for job, task in re.findall(r"/job:(\w+)/replica:0/task:(\d+)", text)
    ]
    own = worker_index()[0]
    return [place for place in dict.fromkeys(places) if place != own]


def _described(place: int) -> str:
    return f"worker {place} ({_addresses()[place]})"


def _addresses() -> list[str]:
    return [*_cluster().get("chief", []), *_cluster()["worker"]]


def _cluster() -> dict[str, list[str]]:
    return json.loads(os.environ[_VARIABLE])["cluster"]

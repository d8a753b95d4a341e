"""A pool that runs tasks in this process or in several others."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tokenizers

from keras_distil.data.tokenize import Encoder

_encoder: Encoder | None = None


def get_encoder() -> Encoder:
    """Returns the encoder that this process was started with."""
    if _encoder is None:
        raise RuntimeError("This process was not given a tokenizer.")
    return _encoder


def _start_process(tokenizer_json: str, parent: int | None) -> None:
    """Prepares a process for tasks."""
    global _encoder
    if parent is not None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _encoder = Encoder(tokenizers.Tokenizer.from_str(tokenizer_json))


def _end_with(parent: int) -> None:
    """Ends this process once its parent has ended or been killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Pool:
    """Runs tasks in this process or in others; results stay in order.

    Args:
        workers: int >= 1; with 1, tasks run in this process.
        tokenizer: its encoder is what `get_encoder` returns in a task.
    """

    def __init__(self, workers: int, tokenizer: tokenizers.Tokenizer) -> None:
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._processes: set[multiprocessing.process.BaseProcess] = set()
        text = tokenizer.to_str()
        if workers == 1:
            _start_process(text, None)
            return
        self._pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            # Forking a process with threads, such as TensorFlow's, is unsafe.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_process,
            initargs=(text, os.getpid()),
        )

    def __enter__(self) -> "Pool":
        """Returns this pool."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the processes; after an error, in the middle of a task."""
        if self._pool is None:
            return
        if kind is not None:
            for process in self._processes:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> Iterable[Any]:
        """Yields the results of the tasks, in the order of the tasks."""
        if self._pool is None:
            yield from map(function, tasks)
            return
        others = set(multiprocessing.active_children()) - self._processes
        try:
            # Ctrl-C reaches all processes of a terminal. This one ends the
            # others, which start with the signal mask that is set here.
            with _block_signal(signal.SIGINT):
                results = self._pool.map(function, tasks)
                self._processes = (
                    set(multiprocessing.active_children()) - others
                )
            yield from results
        except (concurrent.futures.BrokenExecutor, MemoryError) as error:
            raise RuntimeError(
                "A process that prepared the corpus was killed or ran out of "
                "memory. Finished work is kept: run the same command again, "
                "with fewer `--workers`."
            ) from error


@contextlib.contextmanager
def _block_signal(number: signal.Signals) -> Iterator[None]:
    """Holds a signal back until the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

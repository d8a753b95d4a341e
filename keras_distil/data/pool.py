"""Tasks in this process or in several others."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tokenizers

from keras_distil.data.tokenize import Encoder

_encoder: Encoder | None = None


def encoder_here() -> Encoder:
    """The encoder that this process was started with."""
    if _encoder is None:
        raise RuntimeError("This process was not given a tokenizer.")
    return _encoder


def _start_process(tokenizer_json: str, parent: int | None) -> None:
    """Makes a process ready for tasks."""
    global _encoder
    if parent is not None:
        # The parent ends this process; Ctrl-C reaches both.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _encoder = Encoder(tokenizers.Tokenizer.from_str(tokenizer_json))


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, killed included."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Pool:
    """Runs tasks in this process, or in several others, results in order.

    Args:
        workers: int >= 1; 1 is this process.
        tokenizer: what `encoder_here` gives to a task.
    """

    def __init__(self, workers: int, tokenizer: tokenizers.Tokenizer) -> None:
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        text = tokenizer.to_str()
        if workers == 1:
            _start_process(text, None)
            return
        self._pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            # Forking a process that has threads, as TensorFlow's, is unsafe.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_process,
            initargs=(text, os.getpid()),
        )

    def __enter__(self) -> "Pool":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes, after the tasks they are at."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> Iterable[Any]:
        """Results of the tasks, in their order."""
        if self._pool is None:
            yield from map(function, tasks)
            return
        try:
            yield from self._pool.map(function, tasks)
        except (concurrent.futures.BrokenExecutor, MemoryError) as error:
            raise RuntimeError(
                "A process that prepared the corpus was killed or found no "
                "memory. What was finished is kept: run the same "
                "command again, with fewer `--workers`."
            ) from error

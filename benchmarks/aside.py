"""Work in a process of its own, which says when it is ready and what came of it."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection


@contextmanager
def working(work: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """A pipe to a process that has sent its first word.

    work: a module's function; its last argument is its end of the pipe.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=work, args=(*arguments, theirs))
    process.start()
    theirs.close()  # so that a process that dies is heard of
    ours.recv()
    yield ours
    process.join()

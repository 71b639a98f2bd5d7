"""Images read and decided batch by batch on every core, given in order.

Each thread reads one image after the other, so that a few large ones keep all cores busy, and whoever reads the last
of a batch decides the batch: the network runs beside the decoding of the next ones. Memory is bounded by as many
batches as there are cores, and two.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain, islice
from queue import SimpleQueue
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Image = TypeVar("_Image")
_Answer = TypeVar("_Answer")


class _Batch(Generic[_Item, _Image, _Answer]):
    """Items whose images come in one by one; `done` holds the images and what was decided, or what went wrong."""

    def __init__(self, items: list[_Item]) -> None:
        self.items = items
        self.done: Future[tuple[list[_Image], list[_Answer]]] = Future()
        self._images: list[_Image | None] = [None] * len(items)
        self._missing = len(items)
        self._lock = threading.Lock()

    def put(self, row: int, image: _Image) -> list[_Image] | None:
        """Takes one image in; gives all of them when it was the last."""
        with self._lock:
            self._images[row] = image
            self._missing -= 1
            if self._missing:
                return None
        images, self._images = self._images, []
        return images  # type: ignore[return-value]


def decide_in_batches(
    items: Iterable[_Item],
    size: int,
    read: Callable[[_Item], _Image],
    decide: Callable[[Sequence[_Item], Sequence[_Image]], list[_Answer]],
) -> Iterator[tuple[list[_Image], list[_Answer]]]:
    """The images and the answers of each batch, in order; batches begin at multiples of `size`.

    Args:
        items: taken only as far ahead as memory is bounded.
        size: items of a batch; the last may have fewer.
        read: from an item to its image; called from several threads.
        decide: from the items of a batch and their images to their answers; called from several threads.
    """
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:  # one image needs no threads
        if first:
            image = read(first[0])
            yield [image], decide(first, [image])
        return
    source = chain(first, source)
    workers = os.cpu_count() or 1
    todo: SimpleQueue[tuple[_Batch[_Item, _Image, _Answer], int] | None] = SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        while (task := todo.get()) is not None and not stopped.is_set():
            batch, row = task
            try:
                images = batch.put(row, read(batch.items[row]))
                if images is not None:
                    batch.done.set_result((images, decide(batch.items, images)))
            except BaseException as error:  # whatever it is belongs to who waits for the batch
                with suppress(Exception):  # another image of the batch may have failed before
                    batch.done.set_exception(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    pending: deque[_Batch[_Item, _Image, _Answer]] = deque()
    try:
        for thread in threads:
            thread.start()
        while True:
            while len(pending) <= workers and (chunk := list(islice(source, size))):
                pending.append(_Batch(chunk))
                for row in range(len(chunk)):
                    todo.put((pending[-1], row))
            if not pending:
                return
            yield pending.popleft().done.result()
    finally:  # who stops listening waits for no more than the reads under way
        stopped.set()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()

"""Batches whose order and random numbers depend only on the seed and the iteration.

mmengine draws augmentations from generators that run on from batch to batch, one in every worker process. A resumed
training would have to load every earlier batch again to reach their state. Here the generators are seeded for each
batch, from the run's seed, the rank and the number of the iteration. So a resumed training skips batches by drawing
only their indices, and gets the same numbers as an uninterrupted one, with any number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

DATA, MODEL = 0, 1  # users of the random numbers, part of the seed


def seed_generators(*key: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices) with non-negative integers."""
    state = np.random.SeedSequence(key).generate_state(4)
    random.seed(int.from_bytes(state.tobytes(), "little"))
    np.random.seed(state)  # noqa: NPY002 - the generator that transforms draw from
    torch.manual_seed(int(state.view(np.uint64)[0]))


@contextmanager
def kept_generators() -> Iterator[None]:
    """Leave the generators of Python, NumPy and torch as they were before the context, from which the hosts draw."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class NumberedBatch(list):
    """Indices of one batch, and the number of its iteration."""

    def __init__(self, indices: Iterable[int], number: int) -> None:
        super().__init__(indices)
        self.number = number


class NumberedBatches:
    """A batch sampler that numbers the batches of another one and skips those before ``start``.

    Args:
        batches: the batch sampler, with a ``sampler`` and a length.
        endless: whether passes over the data follow each other without epochs, as in IterBasedTrainLoop; then the
            sampler gets the number of the pass, and passes that were trained on before are skipped too.
    """

    def __init__(self, batches: Any, endless: bool) -> None:
        self.batches, self.endless = batches, endless
        self.number = self.start = self.passes = 0
        self.sampler = batches.sampler

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    @property
    def drop_last(self) -> bool:
        return self.batches.drop_last

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[NumberedBatch]:
        while True:
            first = self.number
            if self.endless and hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(self.passes)
            for indices in self.batches:
                number, self.number = self.number, self.number + 1
                if number >= self.start:
                    yield NumberedBatch(indices, number)
            self.passes += 1
            if not self.endless or self.number > self.start or self.number == first:
                return


class SeededFetch:
    """Replacement for a data set's ``__getitems__``: seeds the generators, then gets the samples of a batch."""

    def __init__(self, dataset: Any, key: tuple[int, ...]) -> None:
        self.dataset, self.key = dataset, key
        self.fetch: Callable[[Sequence[int]], list] | None = getattr(dataset, "__getitems__", None)

    def __call__(self, batch: Sequence[int]) -> list:
        if isinstance(batch, NumberedBatch):
            seed_generators(*self.key, DATA, batch.number)
        return self.fetch(batch) if self.fetch else [self.dataset[index] for index in batch]


def number_batches(loader: DataLoader, key: tuple[int, ...], endless: bool) -> NumberedBatches | None:
    """Number the batches of a new loader, and seed each with ``key`` and its number.

    Args:
        loader: changed in place; nothing has been read from it yet.
        key: seed of the run and rank of the process.
        endless: as of ``NumberedBatches``.

    Returns:
        The new batch sampler. None for loaders without one (iterable data sets, ``batch_size=None``), which do not
        change.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    batches = NumberedBatches(loader.batch_sampler, endless)
    # DataLoader forbids this after __init__ because other attributes depend on it; here none of them changes.
    object.__setattr__(loader, "batch_sampler", batches)
    if hasattr(loader.dataset, "__dict__"):  # a plain list draws nothing
        # DataLoader looks for __getitems__ on the object, not on its class.
        loader.dataset.__getitems__ = SeededFetch(loader.dataset, key)  # type: ignore[attr-defined]
    return batches


class Continued:
    """The endless iterator of IterBasedTrainLoop, which asks once for every batch that was trained on before.

    Args:
        iterator: of batches.
        done: number of batches that were trained on before and that ``iterator`` skips by itself.
        pause: called before each batch.
    """

    def __init__(self, iterator: Iterator, done: int, pause: Callable[[], None]) -> None:
        self.iterator, self.done, self.pause = iterator, done, pause

    def __iter__(self) -> Continued:
        return self

    def __next__(self) -> Any:
        self.pause()
        if self.done > 0:
            self.done -= 1
            return None
        return next(self.iterator)

    def skip_iter(self, count: int) -> None:
        """Leave out batches: how mmengine asks for them since 0.10.12 (the maintained fork)."""
        for _ in range(count):
            next(self)

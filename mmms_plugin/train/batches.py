"""Batches whose order and random numbers depend on nothing but the seed and the iteration that they are for.

mmengine draws a batch's augmentations from generators that run on from batch to batch, one in every worker process. An
interrupted training cannot go on where they stood without loading again all that was loaded before. Here the generators
are set anew for each batch, from the run's seed, the rank and the batch's number, which is that of its iteration. So a
resumed training skips batches by drawing their indices alone, and gets the very numbers of an uninterrupted one, with
any number of workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

DATA, MODEL = 0, 1  # what the random numbers are for


def seed_generators(*key: int) -> None:
    """Set the generators of Python, NumPy and torch (all devices) from non-negative integers."""
    state = np.random.SeedSequence(key).generate_state(4)
    random.seed(int.from_bytes(state.tobytes(), "little"))
    np.random.seed(state)  # noqa: NPY002 - the generator that transforms draw from
    torch.manual_seed(int(state.view(np.uint64)[0]))


class NumberedBatch(list):
    """Indices of one batch, and the number of the iteration that it is for."""

    def __init__(self, indices: Iterable[int], number: int) -> None:
        super().__init__(indices)
        self.number = number


class NumberedBatches:
    """A batch sampler that numbers the batches of another and leaves out those before ``start``.

    Args:
        batches: the batch sampler, with a ``sampler`` and a length.
        endless: whether passes over the data follow each other without regard to epochs, as in IterBasedTrainLoop;
            then the sampler is told the number of the pass, and passes that were trained on already are skipped too.
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
    """What a data set's ``__getitems__`` is replaced by: it sets the generators, then gets the samples of a batch."""

    def __init__(self, dataset: Any, key: tuple[int, ...]) -> None:
        self.dataset, self.key = dataset, key
        self.fetch: Callable[[Sequence[int]], list] | None = getattr(dataset, "__getitems__", None)

    def __call__(self, batch: Sequence[int]) -> list:
        if isinstance(batch, NumberedBatch):
            seed_generators(*self.key, DATA, batch.number)
        return self.fetch(batch) if self.fetch else [self.dataset[index] for index in batch]


def number_batches(loader: DataLoader, key: tuple[int, ...], endless: bool) -> NumberedBatches | None:
    """Number the batches of a loader that was not iterated over yet, and seed each from ``key`` and its number.

    Returns the batch sampler that does it, or None for loaders without one (iterable data sets, ``batch_size=None``),
    which are left as they are.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    batches = NumberedBatches(loader.batch_sampler, endless)
    # DataLoader forbids this after __init__, for the sake of attributes that depend on it; here none changes.
    object.__setattr__(loader, "batch_sampler", batches)
    if hasattr(loader.dataset, "__dict__"):  # a plain list draws nothing
        # DataLoader looks for __getitems__ at the object, not at its class.
        loader.dataset.__getitems__ = SeededFetch(loader.dataset, key)  # type: ignore[attr-defined]
    return batches


class Continued:
    """The endless iterator of IterBasedTrainLoop, which asks once for every batch that was trained on already."""

    def __init__(self, iterator: Iterator, done: int) -> None:
        self.iterator, self.done = iterator, done

    def __iter__(self) -> Continued:
        return self

    def __next__(self) -> Any:
        if self.done > 0:
            self.done -= 1
            return None
        return next(self.iterator)

"""Mistakes that a process makes before all can talk about them."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from lit_attr.errors import InterruptedHarvestError, LitAttrError


class Postponed:
    """The first mistake of hooks that Lightning calls on some processes only, or before others are there.

    Raised at once it would end one process, and leave the others waiting for it.
    """

    def __init__(self) -> None:
        self._mistake: LitAttrError | None = None

    @contextmanager
    def with_others(self, trainer: Trainer | None) -> Iterator[None]:
        """Keep a mistake until `raise_mistake`, where there are others to tell of it.

        Args:
            trainer: The trainer, if there is one.
        """
        try:
            yield
        except InterruptedHarvestError:
            raise
        except LitAttrError as error:
            if trainer is None or trainer.world_size == 1:
                raise
            self._mistake = self._mistake or error

    def raise_mistake(self) -> None:
        """Raise what was kept, where all processes learn of it.

        Raises:
            LitAttrError: If something was.
        """
        mistake, self._mistake = self._mistake, None
        if mistake is not None:
            raise mistake

"""A block that ends a run well, or marks it as interrupted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Scope(ABC):
    """What a recorder hangs on, as a context manager."""

    @abstractmethod
    def _complete(self) -> None:
        """The block came to its end."""

    @abstractmethod
    def _interrupt(self, error: BaseException) -> None:
        """The block failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._complete()
        else:
            self._interrupt(error)

"""What could not be read or makes no sense, counted by kind and told with its first example."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class _Found:
    count: int
    first: str


@dataclass
class Problems:
    """Collects what is wrong with a run's files, so that one bad value costs itself and no more."""

    _found: dict[str, _Found] = field(default_factory=dict)

    def add(self, kind: str, first: str, count: int = 1) -> None:
        """Count problems of a kind.

        Args:
            kind: what is wrong, as the beginning of a sentence: the same words for the same kind.
            first: where the first of these is, and what it says.
        """
        self._found.setdefault(kind, _Found(0, first)).count += count

    def texts(self) -> list[str]:
        """A sentence for each kind, in the order in which they were met."""
        return [
            f"{kind} ({found.first})." if found.count == 1 else f"{kind} ({found.count} times; first: {found.first})."
            for kind, found in self._found.items()
        ]


def excerpt(value: object, most: int = 60) -> str:
    """A value for a message, however long it is and whatever it holds."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"

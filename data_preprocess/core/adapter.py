"""What a source's script gives the shared core: how one source row becomes one row of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_preprocess.core.images import ImageRef


@dataclass(frozen=True)
class Draft:
    """A source row whose text is checked and whose images are still to be read.

    Attributes:
        question: decides, for a text-only row, which side it falls on.
        images: the images in the order of their marks; none for a text-only row.
        image_field: the source's name of the image field, for messages.
        kind: problem type, for the summary.
        data_source: for the summary.
        make_row: from the images' bytes and the row's index to a row of the adapter's schema;
            raises `RowError` for a fault that shows only then.
    """

    question: str
    images: Sequence[ImageRef]
    image_field: str
    kind: str
    data_source: str
    make_row: Callable[[Sequence[bytes], int], dict[str, Any]]


class Adapter(Protocol):
    """One per source format. Sent to worker processes, so it must pickle; its `repr` is part of a run's identity."""

    @property
    def schema(self) -> pa.Schema:
        """Schema of the output; holds the row's side in ``split`` or ``extra_info.split``."""

    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """Check the text of a row.

        Raises:
            RowError: the row cannot be used.
        """

    def image_base(self, root: Path, file: str) -> Path | None:
        """A folder inside `root`, other than `root`, that the image paths of `file` may start from."""

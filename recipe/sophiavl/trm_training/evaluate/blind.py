"""What can be had without looking: a regression from text alone to the reference score, as a baseline.

Where a thinking reward model does no better than this, it need not have seen an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from recipe.sophiavl.trm_training.evaluate.statistics import Floats
from recipe.sophiavl.trm_training.pairs import PairsError, read_pairs

_COLUMNS = ("question", "thinking", "score")
_MOST_FEATURES = 2**18


class TextOnlyScorer:
    """Scores reasoning by the words and pairs of words of question and reasoning (TF-IDF and ridge regression)."""

    def __init__(self, pipeline: Pipeline, rows: int) -> None:
        self._pipeline = pipeline
        self.rows = rows

    def score(self, texts: Iterable[tuple[str, str]]) -> Floats:
        """Scores in [0, 1] of (question, reasoning) pairs, shape (texts,)."""
        joined = [_joined(*text) for text in texts]
        return np.clip(self._pipeline.predict(joined), 0.0, 1.0) if joined else np.empty(0)


def fit_text_only(file: Path) -> TextOnlyScorer:
    """Fit on the rows of a parquet file that have a score; their texts are streamed, and only their counts are held.

    Args:
        file: training rows: those beside the test file, which share no image with it.

    Raises:
        PairsError: the file cannot be used, or fewer than two of its rows have a score.
    """
    scores: list[float] = []

    def texts() -> Iterator[str]:
        for number, row in enumerate(read_pairs(file, _COLUMNS, _COLUMNS)):
            for name in ("question", "thinking"):
                if not isinstance(row[name], str):
                    raise PairsError(f"{file}, row {number}, field {name}: must be text, not {row[name]!r}")
            if row["score"] is not None:
                scores.append(float(row["score"]))
                yield _joined(row["question"], row["thinking"])

    # Single letters and digits are words too: options, and counts.
    words = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True, max_features=_MOST_FEATURES)
    try:
        counted = words.fit_transform(texts())
    except ValueError as error:
        if isinstance(error, PairsError):
            raise
        raise PairsError(f"{file}: no text with a score to learn from ({error})") from error
    ridge = Ridge().fit(counted, scores)
    return TextOnlyScorer(make_pipeline(words, ridge), len(scores))


def _joined(question: str, thinking: str) -> str:
    return f"{question}\n{thinking}"

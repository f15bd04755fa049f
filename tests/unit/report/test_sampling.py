"""A sample is uniform, bounded, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from recipe.sophiavl.report.sampling import Sample, priority


def drawn(seed: int, of: int, size: int) -> list[int]:
    sample: Sample[int] = Sample(size)
    for item in range(of):
        sample.offer(priority(seed, item), lambda item=item: item)
    assert sample.seen == of
    return list(sample)


def test_it_is_bounded_without_repetition_and_seeded() -> None:
    found = drawn(0, 1000, 50)
    assert len(set(found)) == 50
    assert found == drawn(0, 1000, 50)
    assert found != drawn(1, 1000, 50)


def test_all_of_a_short_stream_are_kept() -> None:
    assert sorted(drawn(0, 7, 50)) == list(range(7))


def test_nothing_is_kept_by_a_sample_of_nothing() -> None:
    assert drawn(0, 7, 0) == []


def test_each_item_has_the_same_chance() -> None:
    counts = Counter(item for seed in range(400) for item in drawn(seed, 20, 5))
    assert sum(counts.values()) == 2000
    assert all(counts[item] == pytest.approx(100, abs=35) for item in range(20))


def test_what_is_not_kept_is_not_built() -> None:
    sample: Sample[int] = Sample(1)
    sample.offer(5, lambda: 5)
    sample.offer(9, lambda: pytest.fail("built in vain"))
    assert list(sample) == [5]

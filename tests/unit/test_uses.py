"""What the coordinator makes of what attempts tell: how much each would use."""

from __future__ import annotations

import pytest

from blockjobs.daemons.budgets import CHUNK, WINDOW, Use
from blockjobs.model.budgets import ANY

MIB = 1 << 20


def told(*samples):
    use = Use("attempt")
    for at, mib, limit in samples:
        use.add(at, mib * MIB, limit * MIB)
    return use


CASES = {
    "nothing-yet": (told(), 20, ANY),
    "not-for-long-enough": (told((1000, 0, 20), (1900, 2, 20)), 20, ANY),
    "all-it-may": (told((1000, 0, 20), (2000, 20, 20), (3000, 40, 20)), 20, ANY),
    "a-chunk-under-way-counts": (told((1000, 0, 20), (3000, 35, 20)), 20, ANY),
    "less": (told((1000, 0, 20), (3000, 9, 20)), 20, 6.25),
    "nothing-at-all": (told((1000, 5, 20), (3000, 5, 20)), 20, 0.625),
    "all-it-might-before-it-was-given-more": (told((1000, 0, 10), (2000, 10, 10), (3000, 20, 10)), 24, ANY),
    "so-little-that-more-would-not-help": (told((1000, 0, 10), (2000, 4, 10), (3000, 7, 24)), 24, 5),
    "without-a-limit": (told((1000, 0, 0), (3000, 3, 0)), 0, ANY),
}  # fmt: skip


@pytest.mark.parametrize(("use", "limit", "wanted"), CASES.values(), ids=CASES)
def test_a_copy_wants_what_it_used_and_room_to_grow_or_all_it_can_get(use, limit, wanted):
    assert use.want(limit * MIB) == (wanted if wanted == ANY else int(wanted * MIB))


def test_only_the_last_moments_count_and_a_report_counts_once():
    use = told(*((1000 * n, 10 * n, 10) for n in range(1, 9)), (8000, 80, 10))
    assert use.told[-1][0] - use.told[0][0] <= WINDOW
    assert use.rate() == 10 * MIB
    assert use.rate(CHUNK) == 10.5 * MIB

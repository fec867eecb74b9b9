"""The words of run files that stand for values: times, shares, what to do without a host, ranges of hosts."""

from __future__ import annotations

import pytest

from blockjobs.cli.runfile import units
from blockjobs.model.policies import Offline


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("6h", 21600), ("2d", 172800), ("1h30m", 5400), ("1h 30m", 5400), (" 30 m ", 1800)],
)
def test_times(written, seconds):
    assert units.parse_duration(written) == seconds


@pytest.mark.parametrize("written", [5, "5", "", "0s", "-5m", "1.5h", "5 minutes", "m", "10000d", None, True, "٣m"])
def test_what_is_not_a_time(written):
    with pytest.raises(ValueError, match="is not a time; a text such as 90s, 30m, 6h or 1h30m was expected"):
        units.parse_duration(written)


@pytest.mark.parametrize(("written", "share"), [("95%", 95), ("99.5 %", 99.5), ("100%", 100), ("0.1%", 0.1)])
def test_shares(written, share):
    assert units.parse_percent(written) == share


@pytest.mark.parametrize("written", [95, 0.95, "95", "0%", "101%", "-5%", "%", None])
def test_what_is_not_a_share(written):
    with pytest.raises(ValueError, match="is not a share; a text from 1% to 100%, such as 95%, was expected"):
        units.parse_percent(written)


@pytest.mark.parametrize("written", ["fail", "skip", "wait 30m", "wait  1h30m"])
def test_what_to_do_without_a_host_survives_being_stored(written):
    meant = units.parse_offline(written)
    assert Offline.of(str(meant)) == meant


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("web1", ["web1"]), ("web[1-3]", ["web1", "web2", "web3"]),
        ("web[08-11]", ["web08", "web09", "web10", "web11"]),
        ("web[1,03,5-6].example", ["web1.example", "web03.example", "web5.example", "web6.example"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]), ("web[98-101]", ["web98", "web99", "web100", "web101"]),
        ("w[1,1-2]", ["w1", "w2"]),
    ],
)  # fmt: skip
def test_ranges_of_hosts(written, names):
    assert list(units.expand_hosts(written)) == names


@pytest.mark.parametrize(
    "written", ["w[]", "w[1-]", "w[-1]", "w[2-1]", "w[01-5]", "w[a-b]", "w[1", "w1]", "w[[1]]", "w[0-99999]",
                "w[0-999][0-99]", "", 5, None],
)  # fmt: skip
def test_what_is_not_a_range_of_hosts(written):
    with pytest.raises(ValueError, match=r"expected$"):
        units.expand_hosts(written)

"""A user without a home, an entry of passwd, an environment and a current directory can do all that needs none."""

from __future__ import annotations

import os

import pytest
from nobody import run_as_nobody

from blockjobs.cli.start import absolute_volume
from blockjobs.model.errors import BadInput, NoRedis
from blockjobs.settings import absolute_path, find_url, state_directory

NO_URL = "no URL is given, and this user has no home directory; set BLOCKJOBS_REDIS_URL"
SAID = {
    ("init", "units"): (0, ""),
    ("status",): (3, NO_URL),
    ("up", "--host", "a=/tmp"): (2, "--dir: this user has no home directory: a directory that can be written was"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without an entry of passwd")
@pytest.mark.parametrize("words", SAID, ids=lambda words: words[0])
def test_a_command_works_or_says_in_one_line_what_it_needs(words):
    code, says = SAID[words]
    done = run_as_nobody(*words)
    assert (done.returncode, done.stderr.count("\n")) == (code, int(code > 0)), done.stderr
    assert says in done.stderr


@pytest.fixture
def homeless(monkeypatch):
    for name in ("HOME", "XDG_STATE_HOME", "BLOCKJOBS_DIR", "BLOCKJOBS_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("home", ["", "relative", "~"])
def test_a_home_that_is_no_place_is_none(homeless, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    found = state_directory()
    assert found is None or found.is_absolute()
    with pytest.raises(NoRedis, match="Redis is not reachable: no URL is given"):
        find_url()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A current directory that somebody has removed."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    yield
    os.chdir("/")


def test_only_a_relative_path_needs_the_current_directory(nowhere, tmp_path):
    assert absolute_path(tmp_path, "--dir") == tmp_path
    assert absolute_volume("/srv/a.img") == "/srv/a.img"
    assert absolute_volume("web1:a.img") == "web1:a.img"
    with pytest.raises(BadInput, match=r"volume a\.img: the current directory cannot be found"):
        absolute_volume("a.img")

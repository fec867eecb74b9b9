"""What is committed and cannot be published is resolved as a user says, wherever the host dies meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from blockjobs.model.errors import JobFailed
from blockjobs.model.ids import RunId
from blockjobs.model.resolutions import Resolution
from blockworker.records import journal
from blockworker.targets import settle
from blockworker.targets.proof import NotPublished
from blockworker.targets.resolve import resolution_of, resolve_member

CONTENT = b"A" * (1 << 20) + b"tail"
OURS = ["root.img", "root.img.blake3", "root.img.manifest.json"]


def stuck(site, *foreign):
    """A committed job of whose names foreign files have some."""
    site.image(CONTENT)
    member = site.prepared(site.spec())
    for name in foreign or ("root.img",):
        (site.backup / "R" / name).write_text(f"foreign {name}")
    with pytest.raises(NotPublished, match="was taken by a file that is not ours"):
        settle.commit_member(site.roots, member, 7)
    return member


def there(site):
    return {path.name: path for path in (site.backup / "R").iterdir()}


def settle_again(site):
    """As the registry has it done again: the same answer, and a tombstone in the end."""
    settle.commit_job(site.roots, site.spec(), 7)
    root = site.roots.root_of(str(site.backup), write=True)
    assert settle.clean_transaction(site.roots, "R", root)
    settle.commit_job(site.roots, site.spec(), 7)


@pytest.mark.parametrize(
    "foreign", [("root.img",), ("root.img.manifest.json",), tuple(OURS)], ids=["image", "manifest", "all three"]
)
def test_the_foreign_file_is_put_aside(site_at, tmp_path, foreign):
    site = site_at(tmp_path, allow_overwrite=True)
    stuck(site, *foreign)
    resolve_member(site.roots, site.spec(), Resolution.REPLACE, 7)
    aside = [name.replace("root.img", "root.img.replaced-R") for name in foreign]
    assert sorted(there(site)) == sorted([*OURS, *aside])
    assert there(site)["root.img"].read_bytes() == CONTENT
    for name, old in zip(aside, foreign, strict=True):
        assert there(site)[name].read_text() == f"foreign {old}"
    assert resolution_of(site.roots, site.spec())["resolved"] == "replace"
    settle_again(site)


@pytest.mark.parametrize("how", [Resolution.BESIDE, Resolution.REPLACE])
def test_a_way_out_that_makes_names_too_long_is_refused_before_anything_is_visible(site_at, tmp_path, how):
    site = site_at(tmp_path, allow_overwrite=True)
    stuck(site)
    before = sorted(there(site))
    # Of the image alone the name is short enough.
    words = {Resolution.BESIDE: "root.img.", Resolution.REPLACE: "root.img.replaced-"}[how]
    long = replace(site.spec(), run=RunId("r" * (255 - len(words))))
    with pytest.raises(JobFailed, match=f"with --{how} a file would be called root.*255 bytes: --discard was expected"):
        resolve_member(site.roots, long, how, 7)
    assert sorted(there(site)) == before
    resolve_member(site.roots, site.spec(), how, 7)  # nothing was noted: another way is open


def test_it_is_published_beside(site):
    stuck(site)
    resolve_member(site.roots, site.spec(), Resolution.BESIDE, 7)
    ours = [name.replace("root.img", "root.img.R") for name in OURS]
    assert sorted(there(site)) == sorted([*ours, "root.img"])
    assert there(site)["root.img.R"].read_bytes() == CONTENT
    assert there(site)["root.img"].read_text() == "foreign root.img"
    assert resolution_of(site.roots, site.spec()) == {
        "resolved": "beside", "published-as": f"web1:{site.backup}/R/root.img.R",
    }  # fmt: skip
    settle_again(site)


def test_it_is_discarded(site):
    stuck(site)
    resolve_member(site.roots, site.spec(), Resolution.DISCARD, 7)
    assert sorted(there(site)) == ["root.img"]
    assert there(site)["root.img"].read_text() == "foreign root.img"
    assert resolution_of(site.roots, site.spec())["resolved"] == "discard"
    settle_again(site)


def test_what_a_user_may_not_do_changes_nothing(site):
    stuck(site)
    before = site.tree()
    with pytest.raises(JobFailed, match="does not allow overwriting: 'allow-overwrite = true'"):
        resolve_member(site.roots, site.spec(), Resolution.REPLACE, 7)
    for how in (Resolution.BESIDE, Resolution.DISCARD):
        assert resolve_member(site.roots, site.spec(), how, 7, lambda: False) is None
    with pytest.raises(JobFailed, match="no journal on host web1 knows"):
        resolve_member(site.roots, site.spec("R.other"), Resolution.DISCARD, 7)
    assert site.tree() == before
    with pytest.raises(NotPublished):
        settle.commit_job(site.roots, site.spec(), 7)


def test_nothing_of_an_aborted_or_published_job_is_resolved(site):
    site.image(CONTENT)
    settle.abort_member(site.roots, site.prepared(site.spec()), 7)
    with pytest.raises(JobFailed, match="is aborted on this host"):
        resolve_member(site.roots, site.spec(), Resolution.DISCARD, 7)
    other = site.spec("Q.root", "Q/root.img", transaction="Q", run="Q")
    settle.commit_member(site.roots, site.prepared(other), 8)
    before = site.tree()
    resolve_member(site.roots, other, Resolution.DISCARD, 8)
    assert site.tree() == before
    assert resolution_of(site.roots, other) == {}


def test_a_way_that_is_closed_as_well_leaves_the_others_open(site):
    stuck(site)
    (site.backup / "R" / "root.img.R").write_text("foreign, too")
    with pytest.raises(NotPublished, match=r"root\.img\.R was taken"):
        resolve_member(site.roots, site.spec(), Resolution.BESIDE, 7)
    assert resolution_of(site.roots, site.spec()) == {}
    resolve_member(site.roots, site.spec(), Resolution.DISCARD, 7)
    assert sorted(there(site)) == ["root.img", "root.img.R"]
    settle_again(site)


def test_a_staging_file_that_was_cut_can_only_be_discarded(site):
    site.image(CONTENT)
    member = site.prepared(site.spec())
    staging = site.backup / "R" / member.staging
    staging.write_bytes(b"short")
    with pytest.raises(NotPublished, match="it was changed since it was prepared"):
        settle.commit_member(site.roots, member, 7)
    with pytest.raises(NotPublished, match="it was changed since it was prepared"):
        resolve_member(site.roots, site.spec(), Resolution.BESIDE, 7)
    resolve_member(site.roots, site.spec(), Resolution.DISCARD, 7)
    assert not (site.backup / "R").exists()
    settle_again(site)


@pytest.mark.parametrize("how", list(Resolution))
def test_a_host_that_is_killed_anywhere_finishes_it_later(site_at, tmp_path, how, killed_at_every_change):
    numbers = iter(range(1000))

    def set_up():
        site = site_at(tmp_path / str(next(numbers)), allow_overwrite=True)
        stuck(site)
        return site

    def check(site, _):
        try:
            settle.commit_job(site.roots, site.spec(), 7)
        except NotPublished:  # it was killed before it was noted
            root = site.roots.root_of(str(site.backup), write=True)
            assert journal.read_member(site.roots, root, "R", "R.root").resolution == ""
            resolve_member(site.roots, site.spec(), how, 7)
        assert resolution_of(site.roots, site.spec())["resolved"] == how
        names = {
            Resolution.REPLACE: [*OURS, "root.img.replaced-R"],
            Resolution.BESIDE: ["root.img", *(name.replace("root.img", "root.img.R") for name in OURS)],
            Resolution.DISCARD: ["root.img"],
        }  # fmt: skip
        assert sorted(there(site)) == sorted(names[how])
        foreign = {"replace": "root.img.replaced-R"}.get(how, "root.img")
        assert there(site)[foreign].read_text() == "foreign root.img"
        settle_again(site)

    killed_at_every_change(set_up, lambda site: resolve_member(site.roots, site.spec(), how, 7), check, at_least=6)


def test_what_version_1_has_prepared_is_resolved(site_at, tmp_path):
    site = site_at(tmp_path, allow_overwrite=True)
    member = stuck(site)
    root = site.roots.root_of(str(site.backup), write=True)
    with journal.locked_journal(site.roots, root, "R") as here:
        here.put(replace(member, proven={}, which="", run="", reserved=""))
    resolve_member(site.roots, site.spec(), Resolution.REPLACE, 7)
    assert json.loads(there(site)["root.img.manifest.json"].read_text())["job"] == "R.root"
    assert there(site)["root.img.replaced-R"].read_text() == "foreign root.img"

"""A host has another name, or is forgotten: all that the registry has of it goes with the name, and nothing is lost."""

from __future__ import annotations

import inspect
import io
import json

import pytest
import redis
from puppets import ALPHA, BETA, dump, spec
from test_history import ended
from test_rescan import NIGHT, Disks, page, row

from blockjobs.ask.rescan import Rescan
from blockjobs.model import volumespec
from blockjobs.model.errors import Refused
from blockjobs.model.ids import Host, TxnId
from blockjobs.model.liveness import Word, WorkerName
from blockjobs.registry import keys
from blockjobs.registry.hostnames import HOST_KEYS, JUDGED, KeyFate, keys_of
from blockjobs.registry.nodes import Node
from blockjobs.registry.records import FIELDS

pytestmark = pytest.mark.durable

NEW = Host("gamma")
HALF = {WorkerName.STEPS: Word.DOWN, WorkerName.COPY: Word.UP}


@pytest.fixture
def lived(fleet):
    """A host that has all that one can have, and is down: two nights, a found one, limits, drains, a named volume."""
    disks = Disks(fleet, ALPHA)
    fleet.host(ALPHA).hosts.beat(ALPHA, "machine", 2, {}, word="register")
    for day in (1, 2):
        ended(fleet, day, "a", "b", keep={"last": 9})
    fleet.client.hset(keys.sizes(ALPHA), "nightly a full raw", "4096 1")
    disks.pages[ALPHA] = [page(row(3))]
    list(Rescan(fleet.registry, disks)([ALPHA]))
    fleet.client.hset(keys.abandoned(ALPHA), "some-txn", 1)
    fleet.client.hset(keys.hosts(), f"speed:{ALPHA}", 77)
    fleet.registry.nodes.add(
        Node("disk", volumespec.parse_volume(f"{ALPHA}:/srv/disk.img"), {"host": str(ALPHA)}, size=512)
    )
    fleet.client.hset(keys.holding(), f"drain:{ALPHA}", "1 x me")
    fleet.client.hset(keys.holding(), f"drain:{ALPHA}:/srv/a.img", "1 x me")
    fleet.registry.hosts.drop_arrivals([ALPHA])
    down(fleet, ALPHA)
    return fleet


def down(fleet, host):
    fleet.registry.hosts.judge(host, "down", dict.fromkeys(WorkerName, Word.DOWN))


def naming(client, host):
    """Every key of the registry that has a host's name in it or in its value; events tell of what was."""
    found = {key for key in client.scan_iter() if host.encode() in key}
    found |= {key.encode() for key, value in dump(client).items() if host.encode() in repr(value).encode()}
    return {key.decode() for key in found} - {keys.events()}


def test_every_key_of_a_host_is_in_the_table():
    of_hosts = {
        name for name, function in vars(keys).items()
        if inspect.isfunction(function) and "host" in inspect.signature(function).parameters
    }  # fmt: skip
    assert of_hosts == HOST_KEYS.keys()
    assert len(keys_of(ALPHA)) == sum(fate in (KeyFate.CARRIED, KeyFate.DROPPED) for fate in HOST_KEYS.values()) >= 12


def test_every_field_of_a_judgement_is_in_the_table():
    """The catalogue of records lists them, and another test compares the catalogue with the scripts."""
    listed = {row.field for row in FIELDS if row.record == "hosts"}
    assert listed == {f"{name}:" for name in JUDGED}


def test_everything_of_a_host_goes_to_its_new_name_and_nothing_names_the_old_one(lived, command):
    before = json.loads(command("history", "--json")[1])
    targets = {(each.job, each.path, each.held, each.number) for each in
               lived.registry.history.targets(lived.registry.views.runs())}  # fmt: skip
    code, out, _ = command("hosts", "rename", ALPHA, NEW, "--yes")
    assert (code, out) == (0, "alpha is called gamma: 4 jobs on record, 5 backups, 1 named volume\n")
    assert naming(lived.client, ALPHA) == set()
    assert json.loads(command("history", "--json")[1]) == before
    after = lived.registry.history.targets(lived.registry.views.runs())
    assert {(each.job, each.path, each.held, each.number) for each in after} == targets
    assert {(each.host, each.source.partition(":")[0]) for each in after} == {(NEW, NEW)}
    job = lived.registry.views.job(f"{NIGHT.format(1)}.a")
    assert (job.host, job.spec.source.host, job.spec.target.text) == (
        NEW,
        NEW,
        f"{NEW}:/backup/{NIGHT.format(1)}/a.img",
    )
    assert [place.host for place in lived.registry.views.places(NIGHT.format(1))] == [NEW, NEW]
    assert lived.client.hgetall(keys.sizes(NEW)) == {b"nightly a full raw": b"4096 1"}
    assert lived.client.hgetall(keys.abandoned(NEW)) == {b"some-txn": b"1"}
    assert lived.client.hget(keys.hosts(), f"speed:{NEW}") == b"77"
    assert lived.registry.nodes.get("disk").volume.text == f"{NEW}:/srv/disk.img"
    assert {key.decode() for key in lived.client.hkeys(keys.holding())} == {f"drain:{NEW}", f"drain:{NEW}:/srv/a.img"}
    assert lived.events("HOST_RENAMED") == [("HOST_RENAMED", ALPHA)]
    assert command("show", f"{NIGHT.format(1)}.a")[0] == 0


def test_what_its_workers_told_last_is_not_lost(lived, command):
    told = {"event": "JOB_WARNING", "id": f"{NIGHT.format(1)}.a", "text": "late"}
    lived.client.xadd(keys.host_events(ALPHA), told)
    command("hosts", "rename", ALPHA, NEW, "--yes")
    assert not lived.client.exists(keys.host_events(ALPHA))
    (event,) = (event for event in lived.registry.events.all() if event.name == "JOB_WARNING")
    assert (event.id, event.fields["text"]) == (told["id"], "late")


def test_the_next_night_under_the_new_name_is_of_the_same_series(lived, command):
    command("hosts", "rename", ALPHA, NEW, "--yes")
    run = NIGHT.format(4)
    job = spec(f"{run}.a", host=NEW, run=run, source=volumespec.parse_volume(f"{NEW}:/srv/a.img"))
    lived.submit(job)
    series = {
        each.series for each in lived.registry.history.targets(lived.registry.views.runs()) if each.job[-1] == "a"
    }
    assert series == {("", "a", job.source.lock)}


def cut_off(fleet, calls):
    """Have the registry go away at the n-th change."""
    real, left = fleet.client.execute_command, [calls]

    def execute(*args, **options):
        if str(args[0]).upper() in {"EVALSHA", "HSET", "HDEL", "DEL"}:
            left[0] -= 1
            if left[0] < 0:
                raise redis.ConnectionError("cut")
        return real(*args, **options)

    return execute


def test_a_rename_that_was_cut_off_anywhere_is_finished_by_the_next_one(lived, monkeypatch):
    whole, names = None, lived.registry.hostnames
    start = {key: lived.client.dump(key) for key in lived.client.scan_iter()}
    cuts = 0
    for cut in range(100):
        lived.client.flushall()
        for key, value in start.items():
            lived.client.restore(key, 0, value)
        with monkeypatch.context() as patch:
            patch.setattr(lived.client, "execute_command", cut_off(lived, cut))
            try:
                names.rename(ALPHA, NEW, "me")
                done = True
            except redis.ConnectionError:
                done, cuts = False, cuts + 1
        if not done:
            if lived.client.hexists(keys.hosts(), f"renaming:{ALPHA}"):
                with pytest.raises(Refused, match=f"is being renamed to '{NEW}'"):
                    names.rename(ALPHA, BETA, "me")
            names.rename(ALPHA, NEW, "me")
        assert naming(lived.client, ALPHA) == set(), cut
        now = {key: value for key, value in dump(lived.client).items() if key != keys.events()}
        whole = whole or now
        assert now == whole, cut
        if done:
            break
    assert cuts >= 10


def open_elsewhere(fleet):
    """A transaction of which this host's members are over and dismissed, and those of another one are not."""
    fleet.client.hset(keys.txn(TxnId("t")), mapping={f"host:{ALPHA}": 1, f"host:{BETA}": 1})
    fleet.client.zadd(keys.unfinished(), {"t": 1})


@pytest.mark.parametrize("verb", [("rename", ALPHA, NEW), ("remove", ALPHA, "--with-history")], ids=" ".join)
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda fleet: fleet.registry.hosts.judge(ALPHA, "up"), "has a worker that is there"),
        (lambda fleet: fleet.registry.hosts.judge(ALPHA, "down", HALF), "has a worker that is there"),
        (lambda fleet: fleet.submit(spec("x")), "has jobs that are not over"),
        (open_elsewhere, "has jobs that are not over, of transaction t"),
        (lambda fleet: fleet.client.hset(keys.restart(), f"lost:{ALPHA}", 9), "decisions that were lost"),
    ],
    ids=["it is up", "one worker is there", "a job is open", "others of its transaction", "it knows of lost decisions"],
)  # fmt: skip
def test_a_host_that_is_there_or_has_open_jobs_keeps_its_name(lived, command, verb, spoil, told):
    spoil(lived)
    before = dump(lived.client)
    code, _, err = command("hosts", *verb, "--yes")
    assert (code, told in err) == (2, True), err
    assert dump(lived.client) == before


@pytest.mark.parametrize(
    "own",
    [
        lambda fleet: fleet.client.hset(keys.abandoned(NEW), "t", 1),
        lambda fleet: fleet.registry.nodes.add(Node("x", volumespec.parse_volume(f"{NEW}:/x"), {})),
        lambda fleet: fleet.submit(spec("x", host=NEW)),
        lambda fleet: fleet.client.hset(
            keys.targets(NIGHT.format(1)), "z", fleet.client.hget(keys.targets(NIGHT.format(1)), f"{NIGHT.format(1)}.a")
            .replace(b"alpha", b"gamma")
        ),
    ],
    ids=["decisions", "a volume", "a job", "a backup"],
)  # fmt: skip
def test_a_name_that_has_something_of_its_own_is_not_taken(lived, command, own):
    own(lived)
    before = dump(lived.client)
    code, _, err = command("hosts", "rename", ALPHA, NEW, "--yes")
    assert (code, f"host '{NEW}' has" in err) == (2, True), err
    assert dump(lived.client) == before


def test_a_job_that_is_gone_or_not_over_meanwhile_is_given_to_nobody(lived):
    """As whoever renames has read its record a moment before."""
    names = lived.registry.hostnames
    gone, opened = list(names._jobs(ALPHA))[:2]
    lived.registry.verbs.dismiss(gone.id)
    lived.client.hset(keys.job(ALPHA, opened.id), "status", "pending")
    before = dump(lived.client)
    assert not names._give(gone, NEW)
    with pytest.raises(Refused, match=f"job '{opened.id}' is pending now"):
        names._give(opened, NEW)
    assert dump(lived.client) == before


def test_what_history_has_to_know_of_a_job_goes_with_it_where_it_has_any(lived):
    names = lived.registry.hostnames
    plain, full = list(names._jobs(ALPHA))[:2]
    for job in (plain, full):
        lived.client.hdel(keys.job(ALPHA, job.id), "backup")
    lived.client.hset(keys.job(ALPHA, full.id), mapping={"backup": "x", "published-as": f"{ALPHA}:/backup/other.img"})
    lived.client.delete(keys.txn(plain.transaction), keys.order(plain.transaction))
    for job in names._jobs(ALPHA):
        names._give(job, NEW)
    kept = [lived.client.hmget(keys.job(NEW, job.id), "backup", "published-as") for job in (plain, full)]
    assert kept[0] == [None, None]
    assert b"alpha" not in kept[1][0] != b"x"
    assert kept[1][1] == f"{NEW}:/backup/other.img".encode()
    assert not lived.client.exists(keys.txn(plain.transaction))


def test_a_host_that_is_up_by_now_or_forgotten_already_is_not_forgotten(lived):
    names = lived.registry.hostnames
    lived.registry.hosts.judge(ALPHA, "up")
    before = dump(lived.client)
    with pytest.raises(Refused, match="is up again"):
        names._forget(ALPHA, "", "me")
    assert dump(lived.client) == before
    down(lived, ALPHA)
    lived.client.xadd(keys.host_events(ALPHA), {"event": "HOST_LEFT", "id": ALPHA})
    for _ in range(2):
        names._forget(ALPHA, "", "me")
    assert lived.events("HOST_LEFT", "HOST_REMOVED") == [("HOST_LEFT", ALPHA), ("HOST_REMOVED", ALPHA)]


@pytest.mark.parametrize("why", ["in the way", ""], ids=["left", "not left"])
def test_the_reason_why_a_backup_was_not_pruned_goes_with_it(fleet, why):
    disks = Disks(fleet, ALPHA)
    disks.pages[ALPHA] = [page(row(1))]
    list(Rescan(fleet.registry, disks)([ALPHA]))
    (target,) = fleet.registry.hostnames.backups(ALPHA)
    if why:
        fleet.registry.history.leave(target, why)
    before = [*fleet.client.hgetall(keys.left(target.run)).values()]
    assert len(before) == bool(why)
    assert fleet.registry.found.rehost(target, NEW)
    entry = f"{target.job}@{NEW}".encode()
    assert fleet.client.hkeys(keys.targets(target.run)) == [entry]
    assert fleet.client.hgetall(keys.left(target.run)) == dict(zip([entry], before, strict=False))


def test_a_new_name_may_be_up_already(lived, command):
    lived.registry.hosts.judge(NEW, "up")
    lived.host(NEW).hosts.beat(NEW, "machine", 2, {})
    assert command("hosts", "rename", ALPHA, NEW, "--yes")[0] == 0
    assert lived.registry.hosts.known().keys() == {NEW}
    assert lived.client.hget(keys.card(NEW), "beat") == b"1"


@pytest.mark.parametrize(
    ("words", "told"),
    [(("rename", "nobody", NEW), "is not known"), (("rename", ALPHA, ALPHA), "is called so already"),
     (("rename", ALPHA, "no host"), "invalid host name"), (("remove", "nobody"), "is not known")],
)  # fmt: skip
def test_what_cannot_be_renamed_or_removed_is_said_in_one_line(lived, command, words, told):
    code, _, err = command("hosts", *words, "--yes")
    assert (code, told in err, err.count("\n")) == (2, True, 1), err


def test_a_host_is_forgotten_with_its_history_only_if_it_is_told_so(lived, command):
    before = dump(lived.client)
    code, _, err = command("hosts", "remove", ALPHA, "--yes")
    assert (code, "has 5 backups on record: --with-history" in err) == (2, True)
    assert dump(lived.client) == before
    code, out, _ = command("hosts", "remove", ALPHA, "--with-history", "--yes")
    assert (code, out) == (0, "alpha is forgotten: 4 jobs on record, 5 backups, 1 named volume\n")
    left = {key for key in naming(lived.client, ALPHA) if not key.startswith("bj:run:")}
    assert left <= {keys.txn(TxnId(NIGHT.format(day))) for day in (1, 2)}
    assert lived.registry.history.targets(lived.registry.views.runs()) == []
    assert command("hosts")[1] == "no host has registered\n"
    assert lived.events("HOST_REMOVED") == [("HOST_REMOVED", ALPHA)]


def test_what_another_host_has_of_the_same_runs_stays(lived, command):
    run = NIGHT.format(1)
    entry = lived.client.hget(keys.targets(run), f"{run}.a")
    lived.client.hset(keys.targets(run), f"{run}.c", entry.replace(b"alpha:", b"beta:", 1))
    lived.registry.hosts.judge(BETA, "up")
    command("hosts", "remove", ALPHA, "--with-history", "--yes")
    (target,) = lived.registry.history.targets(lived.registry.views.runs())
    assert (target.host, target.job) == (BETA, f"{run}.c")


def test_nothing_is_done_before_somebody_has_answered(lived, command, monkeypatch):
    before = dump(lived.client)
    for words in (("rename", ALPHA, NEW), ("remove", ALPHA, "--with-history")):
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert command("hosts", *words)[0] == 130
    assert dump(lived.client) == before

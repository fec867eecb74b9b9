"""A volume that is reserved for what is no job: no job begins with it, and it is free again, whoever dies."""

from __future__ import annotations

import pytest
from puppets import ALPHA, RUN, dump, spec

from blockjobs.model import errors, volumespec
from blockjobs.model.barriers import Step
from blockjobs.registry import keys
from blockjobs.registry.nodes import RESERVED_FOR, Node, NodeBusy
from blockjobs.registry.questions import KEEP

IMAGE = volumespec.parse_volume("alpha:/srv/an image.img")
OTHER = volumespec.parse_volume("alpha:/srv/other.img")
SIDES = {"source": spec("j", source=IMAGE), "target": spec("j", target=IMAGE)}


@pytest.fixture
def nodes(registry):
    return registry.nodes


@pytest.mark.parametrize("side", SIDES)
def test_no_job_begins_with_a_reserved_volume(fleet, nodes, client, side):
    holder = nodes.reserve(IMAGE, "resize")
    with pytest.raises(errors.VolumeBusy, match="in use by block job: resize"):
        fleet.submit(SIDES[side])
    nodes.unreserve(IMAGE, holder)
    assert not client.exists(keys.texts(), keys.reserved())
    fleet.submit(SIDES[side])
    fleet.walk(RUN, Step.RUN)


@pytest.mark.parametrize("side", SIDES)
def test_what_a_job_uses_is_not_reserved(fleet, nodes, side):
    fleet.submit(SIDES[side])
    before = dump(fleet.client)
    with pytest.raises(errors.VolumeBusy, match="in use by block job: backup"):
        nodes.reserve(IMAGE, "resize")
    assert dump(fleet.client) == before
    nodes.reserve(OTHER, "resize")


def test_two_do_not_reserve_one_volume(nodes):
    first = nodes.reserve(IMAGE, "resize")
    with pytest.raises(errors.VolumeBusy, match="in use by block job: resize"):
        nodes.reserve(IMAGE, "resize")
    nodes.unreserve(IMAGE, first)
    second = nodes.reserve(IMAGE, "resize")
    nodes.unreserve(IMAGE, first)  # late, and no longer his
    assert nodes.writer(IMAGE) == second


def test_a_reserved_volume_keeps_its_node(nodes):
    nodes.add(Node("a", IMAGE, {"driver": "file"}, size=1))
    nodes.reserve(IMAGE, "resize")
    with pytest.raises(NodeBusy, match="Node 'a' is busy: block device is in use by block job: resize"):
        nodes.remove("a")


def test_the_reaper_lifts_what_nobody_lifted(registry, nodes, client):
    nodes.reserve(IMAGE, "resize")
    assert nodes.expire(registry.hosts.now()) == ()
    assert nodes.expire(registry.hosts.now() + RESERVED_FOR) == (IMAGE.text,)
    assert not client.exists(keys.texts(), keys.reserved())


def test_every_node_of_a_resized_volume_says_so(nodes):
    for name, volume in (("a", IMAGE), ("b", OTHER), ("c", IMAGE)):
        nodes.add(Node(name, volume, {"driver": "file"}, ("x",), size=1, read_only=True))
    nodes.resized(IMAGE, 7)
    assert [(node.name, node.size, node.children, node.read_only) for node in nodes.list()] == [
        ("a", 7, ("x",), True), ("b", 1, ("x",), True), ("c", 7, ("x",), True),
    ]  # fmt: skip


def test_a_permit_is_taken_once_by_the_host_or_by_the_asker(registry, fleet):
    registry.questions.permit(ALPHA, "question", 60)
    assert fleet.host(ALPHA).questions.take_permit(ALPHA, "question")
    assert not registry.questions.take_permit(ALPHA, "question")
    assert not fleet.host(ALPHA).questions.take_permit(ALPHA, "question")


def test_a_host_knows_the_files_that_its_jobs_use(fleet):
    fleet.submit(spec("j"))
    fleet.walk(RUN, Step.RUN)
    locks = {name.decode()[2:] for name in fleet.client.hkeys(keys.locks(ALPHA))}
    reads, writes = sorted(locks)
    in_use = fleet.host(ALPHA).answers.in_use
    assert in_use(reads, "none") != in_use(writes, "none")
    assert in_use("none", writes) != in_use("none", reads)
    assert not in_use("none", "none")


def test_an_answer_that_nobody_fetches_is_forgotten(fleet):
    fleet.host(ALPHA).questions.answer(ALPHA, "question", [1])
    assert 0 < fleet.client.ttl(keys.reply(ALPHA, "question")) <= KEEP

"""A host that is given up keeps nobody waiting, and leaves nothing if it comes back after all."""

from __future__ import annotations

import pytest
from fleet import MIB, Fleet, files

from blockjobs.client.fleet import Fleet as Client
from blockjobs.model import errors
from blockjobs.model.ids import Host
from blockjobs.model.liveness import WorkerName
from blockjobs.registry import keys


def test_an_abandoned_host_that_comes_back_removes_what_it_had_begun(fleet: Fleet) -> None:
    images = {host: fleet.image(host, "abandoned.img", 8) for host in ("c", "d")}
    before = {host: files(fleet.root(host)) for host in ("c", "d")}
    run = fleet.submit(fleet.plan([
        {"id": f"on-{host}", "source": f"{host}:{image}", "target": f"{host}:{fleet.root(host)}/abandoned.out"}
        for host, image in images.items()
    ], speed=MIB))  # fmt: skip
    for host in images:
        fleet.until_offset(f"{run}.on-{host}", MIB)
    with Client(fleet.server.url) as here:
        with pytest.raises(errors.Refused, match="is up"):
            here.abandon("d")
        fleet.kill("steps@d")
        fleet.kill("copy@d")
        fleet.until_true(lambda: fleet.registry.hosts.known()[Host("d")].lacks(WorkerName.STEPS))
        assert here.abandon("d") == 1
        assert here.wait([run], 20) == {run: False}
        assert here.get(f"{run}.on-d").error == "host d was abandoned"
        assert here.get(f"{run}.on-c").cancelled
    assert files(fleet.root("c")) == before["c"]
    assert files(fleet.root("d")) > before["d"], "nobody was there to tidy up"
    fleet.start("steps@d")
    fleet.until_true(lambda: not fleet.client.exists(keys.abandoned(fleet.hosts[3])))  # the last thing it does
    assert files(fleet.root("d")) == before["d"]

"""A registry that another version of blockjobs uses is refused by its number, which the control plane alone raises."""

from __future__ import annotations

import pytest
from puppets import dump

from blockjobs.model.errors import Refused
from blockjobs.registry import keys
from blockjobs.registry.connection import connect_client
from blockjobs.registry.format import FORMAT, expect_same_format, raise_format

pytestmark = pytest.mark.durable


@pytest.fixture
def worker(tmp_path):
    (tmp_path / "host.toml").write_text(f'name = "web1"\nread-roots = ["{tmp_path}"]\nwrite-roots = ["{tmp_path}"]\n')
    return ("worker", "--host", "web1", "--config", f"{tmp_path}/host.toml", "--queue")


def test_every_process_refuses_a_registry_of_a_newer_version_and_changes_nothing(client, command, worker):
    client.set(keys.registry_format(), FORMAT + 1)
    before = dump(client)
    for words in (("coordinator",), ("finalizer",), (*worker, "copy"), (*worker, "steps"), ("status",), ("hosts",)):
        code, out, err = command(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert f"the registry is of format {FORMAT + 1}, and this version of blockjobs knows {FORMAT}" in err
    assert dump(client) == before


def test_a_host_and_a_client_wait_for_the_control_machine_to_be_upgraded(client, command, worker):
    client.set(keys.registry_format(), FORMAT - 1)
    for words in ((*worker, "copy"), (*worker, "steps"), ("status",)):
        code, _, err = command(*words)
        assert code == 2
        assert "upgrade the control machine first" in err
    assert client.get(keys.registry_format()) == str(FORMAT - 1).encode()


@pytest.mark.parametrize("found", [None, FORMAT - 1, FORMAT])
def test_the_control_plane_raises_the_number_and_everybody_else_goes_on(client, found):
    if found is not None:
        client.set(keys.registry_format(), found)
    raise_format(client)
    assert client.get(keys.registry_format()) == str(FORMAT).encode()
    expect_same_format(client)


@pytest.mark.parametrize("ask", [raise_format, expect_same_format])
def test_a_registry_of_a_newer_version_is_refused_and_keeps_its_number(client, ask):
    client.set(keys.registry_format(), FORMAT + 1)
    with pytest.raises(Refused, match="install that version here, too"):
        ask(client)
    assert client.get(keys.registry_format()) == str(FORMAT + 1).encode()


def test_a_registry_that_nobody_has_used_is_left_to_the_control_plane(client):
    expect_same_format(client)
    assert client.get(keys.registry_format()) is None


@pytest.mark.parametrize("ask", [raise_format, expect_same_format])
def test_a_key_of_somebody_else_is_named(client, ask):
    client.set(keys.registry_format(), "latest")
    with pytest.raises(Refused, match="key bj:format of the registry is no number"):
        ask(client)


def test_a_user_who_may_not_look_is_warned_with_the_missing_right(server, client, caplog):
    client.execute_command("ACL", "SETUSER", "old", "reset", "on", ">x", "~bj:h:*", "+@all")
    with connect_client(f"unix://old:x@{server.socket}?db=0") as old:
        expect_same_format(old)
    client.execute_command("ACL", "DELUSER", "old")
    assert "give this user %R~bj:format in the ACL file" in caplog.text

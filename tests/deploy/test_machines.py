"""A deployment by the words of deploy/README.md, on machines that systemd boots: Debian's Redis, TLS, units and ACL.

One story, in order: each test goes on from where the one before it ended.
"""

from __future__ import annotations

import json
import shutil
import subprocess

from conftest import TLS, blocks, set_url
from machines import Machine

PASSWORDS = "/root/blockjobs"
DAEMONS = "blockjobs-coordinator blockjobs-finalizer"
WORKERS = "blockjobs-worker@copy blockjobs-worker@steps"
KEYS = """
redis-cli --no-auth-warning -u "$(sed -n 's/^BLOCKJOBS_REDIS_URL=//p' /etc/blockjobs/control.env | cut -d? -f1)" \
    --user admin --pass "$(cat /root/blockjobs/admin.password)" --cacert /etc/redis/ca.pem
"""

SNAPSHOT = """
import json, sys
from blockjobs.registry.connection import connect_client
client = connect_client(sys.argv[1])
read = {
    b"hash": lambda key: sorted(client.hgetall(key).items()),
    b"list": lambda key: client.lrange(key, 0, -1),
    b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    b"stream": client.xrange,
    b"string": client.get,
    b"set": lambda key: sorted(client.smembers(key)),
}
print(json.dumps({key.decode(): repr(read[client.type(key)](key)) for key in client.scan_iter()}))
"""


def as_user(user, command):
    """A command of blockjobs as it is given by a user of Redis."""
    file = f"BLOCKJOBS_REDIS_PASSWORD_FILE={PASSWORDS}/{user}.password"
    return f"BLOCKJOBS_REDIS_URL='{TLS.format(user=user)}' {file} {command}"


def operate(machine, command, *, user="operator", check=True):
    """Give a command of blockjobs: (exit code, output)."""
    return machine.say(as_user(user, f"blockjobs {command}"), check=check)


def admin(control, *words):
    """What Redis answers its admin."""
    return control.say(f"{KEYS.strip()} {' '.join(words)}")[1]


def snapshot(control):
    """Every key of the registry and its value."""
    url = TLS.format(user="admin") + "&password_file=/root/blockjobs/admin.password"
    return json.loads(control.say(f"cat > /tmp/snapshot.py <<'END'\n{SNAPSHOT}END\npython /tmp/snapshot.py '{url}'")[1])


def await_host_up(control):
    control.await_that(as_user("viewer", "blockjobs hosts") + " | grep -E '^web1 +up'")


def await_running(control, job):
    control.await_that(f"{KEYS.strip()} HGET bj:h:web1:job:{job} status | grep -q running")


def test_by_the_words_of_the_readme_every_unit_serves(fleet):
    control, web1 = fleet
    control.boot()
    web1.boot(f"--bind-ro={control.root}/opt/blockjobs:/opt/blockjobs")
    for machine in fleet:
        machine.say("\n".join(blocks("Every machine")[0].splitlines()[2:]))
    redis, daemons = blocks("The control machine")
    control.say(redis)
    begin, enable = daemons.rsplit("\n", 2)[0], daemons.rsplit("\n", 2)[1]
    control.say(begin)
    set_url(control, "control", "control")
    control.say(enable)
    assert control.say(f"systemctl is-active {DAEMONS}")[1].split() == ["active", "active"], "Type=notify: they serve"

    web1.say("mkdir -p /srv/images /backup && chown blockjobs /srv/images /backup")
    web1.say("blockjobs init host /etc/blockjobs/host.toml && blockjobs init env worker /etc/blockjobs/worker.env")
    web1.say(blocks("A storage host")[0] + "test -x /etc/blockjobs/commands/lvm.sh")
    password = control.say("cat /root/blockjobs/worker-web1.password")[1]
    web1.say(f"umask 077; echo {password.strip()} > /etc/blockjobs/worker.password")
    set_url(web1, "worker", "worker-web1")
    web1.say(f"systemctl enable --now {WORKERS}")
    await_host_up(control)


def test_an_image_in_vmdk_becomes_one_in_qcow2_under_the_confined_units(fleet):
    control, web1 = fleet
    make = "qemu-img convert -O vmdk /srv/a.raw /srv/images/a.vmdk; chown -R blockjobs /srv/images"
    web1.say(f"dd if=/dev/urandom of=/srv/a.raw bs=1M count=4 status=none; {make}")
    operate(control, "backup web1:/srv/images/a.vmdk web1:/backup/a.qcow2 --source-format vmdk --format qcow2")
    web1.say(
        "qemu-img info /backup/a.qcow2 | grep -q 'file format: qcow2'; qemu-img compare /srv/a.raw /backup/a.qcow2"
    )


def test_an_operator_gives_verbs_and_a_viewer_is_refused(fleet):
    control, web1 = fleet
    web1.say("dd if=/dev/urandom of=/srv/images/b.img bs=1M count=64 status=none; chown blockjobs /srv/images/b.img")
    operate(control, "backup web1:/srv/images/b.img web1:/backup/b.img --id b --speed 512KiB --detach")
    code, out = operate(control, "pause b", user="viewer", check=False)
    assert (code, out.count("\n")) == (2, 1)
    assert "Redis does not let the user of this URL do that" in out
    for words in ("pause b", "status", "resume b", "show b"):
        operate(control, words)
    operate(control, "status", user="viewer")


def test_a_host_is_refused_nothing_by_redis_and_shows_its_password_to_nobody(fleet):
    control, web1 = fleet
    assert "worker-web1" not in admin(control, "ACL", "LOG")
    look = "grep -lF -f /etc/blockjobs/worker.password {} 2>/dev/null || true"
    assert web1.say(look.format("/proc/[0-9]*/environ /proc/[0-9]*/cmdline"))[1] == ""
    assert web1.say(look.format("/etc/blockjobs/*"))[1].split() == ["/etc/blockjobs/worker.password"], "the control"


def test_a_copy_goes_on_over_a_restart_of_redis_and_a_killed_worker_and_no_key_is_lost(fleet):
    control, web1 = fleet
    web1.say(f"systemctl stop {WORKERS}")
    control.say(f"systemctl stop {DAEMONS}")
    before = snapshot(control)
    assert len(before) > 10
    control.say("systemctl restart redis-server")
    assert snapshot(control) == before
    assert control.say("grep -c CRITICAL /var/log/redis/redis-server.log || true")[1].strip() == "0"
    control.say(f"systemctl start {DAEMONS}")
    web1.say(f"systemctl start {WORKERS}")
    await_running(control, "b")
    for unit in WORKERS.split():
        web1.say(f"kill -9 $(systemctl show -p MainPID --value {unit})")
    await_host_up(control)
    operate(control, "set-speed b 0")
    operate(control, "wait b", check=True)
    web1.say("cmp /srv/images/b.img /backup/b.img")


def test_a_machine_whose_power_fails_comes_back_by_itself_with_its_copy(fleet):
    control, web1 = fleet
    operate(control, "backup web1:/srv/images/b.img web1:/backup/c.img --id c --speed 512KiB --detach")
    await_running(control, "c")
    web1.switch_off()
    web1.boot(f"--bind-ro={control.root}/opt/blockjobs:/opt/blockjobs")
    operate(control, "set-speed c 0", check=False)
    operate(control, "wait c")
    web1.say("cmp /srv/images/b.img /backup/c.img")


def test_a_boot_without_redis_leaves_no_unit_failed_for_good(fleet):
    control, web1 = fleet
    control.say("systemctl stop redis-server")
    web1.switch_off()
    web1.boot(f"--bind-ro={control.root}/opt/blockjobs:/opt/blockjobs")
    waiting = "systemctl show -p NRestarts --value blockjobs-worker@steps | grep -qE '[1-9]'"
    web1.await_that(waiting)
    assert "is not reachable" in web1.say("journalctl -u blockjobs-worker@steps --no-pager -b")[1]
    control.say("systemctl start redis-server")
    web1.await_that("systemctl is-active " + WORKERS)
    await_host_up(control)


def test_by_the_words_of_the_document_runs_are_started_by_a_timer_as_the_user_operator(fleet):
    control, _ = fleet
    run = {
        "version": 1,
        "name": "nightly",
        "jobs": [{"id": "b", "source": "web1:/srv/images/b.img", "target": "web1:/backup/{run}.img"}],
    }
    environment, password, *rest = blocks("A timer", "docs/unattended.md")[0].splitlines()
    control.say(f"{environment}; {password}")
    set_url(control, "operator", "operator")
    said = control.say("\n".join(["cd /root", f"echo '{json.dumps(run)}' > nightly.yaml", *rest]))[1]
    assert "blockjobs-run@nightly.timer" in said
    assert "committed" in said
    assert control.say("systemctl is-active blockjobs-run@nightly.timer")[1].strip() == "active"


def test_a_process_that_no_longer_lives_is_ended_by_the_watchdog_and_started_again(fleet):
    control, _ = fleet
    control.say("mkdir -p /run/systemd/system/blockjobs-finalizer.service.d; "
                "printf '[Service]\nWatchdogSec=2\n' > /run/systemd/system/blockjobs-finalizer.service.d/soon.conf; "
                "systemctl daemon-reload; systemctl restart blockjobs-finalizer")  # fmt: skip
    first = control.say("systemctl show -p MainPID --value blockjobs-finalizer")[1].strip()
    control.say(f"kill -STOP {first}")
    control.await_that(
        f"new=$(systemctl show -p MainPID --value blockjobs-finalizer); [ $new != {first} ] && [ $new != 0 ]"
    )
    assert "Watchdog timeout" in control.say("journalctl -u blockjobs-finalizer --no-pager")[1]


def test_every_unit_is_confined_as_systemd_sees_it(fleet):
    control, web1 = fleet
    for machine, units in ((control, DAEMONS), (web1, WORKERS)):
        for unit in units.split():
            out = machine.say(f"systemd-analyze security --no-pager {unit} | tail -1")[1]
            assert float(out.split(":")[1].split()[0]) <= 2.0, out


def test_a_second_machine_of_that_name_is_refused_by_name_for_both_workers_and_so_is_a_cloned_disk(fleet):
    control, web1 = fleet
    taken = "host name 'web1' is held by another {} worker"
    with Machine("stranger") as stranger, Machine("clone") as clone:
        for name in ("etc/blockjobs", "var/lib/blockjobs", "etc/systemd/system"):
            for machine in (stranger, clone):
                copy_folder(web1.root / name, machine.root / name)
        shutil.rmtree(stranger.root / "var/lib/blockjobs")
        (clone.root / "etc/machine-id").write_text(web1.say("cat /etc/machine-id")[1])
        add_user = blocks("Every machine")[0].splitlines()[2]
        own = "chown -R blockjobs /srv/images /backup /var/lib/blockjobs || true"
        for machine in (stranger, clone):
            machine.install(f"{add_user}; mkdir -p /opt/blockjobs /srv/images /backup; {own}")
            machine.boot(f"--bind-ro={control.root}/opt/blockjobs:/opt/blockjobs")
            machine.say("echo BLOCKJOBS_HOST=web1 >> /etc/blockjobs/worker.env")
            machine.say(f"systemctl restart --no-block {WORKERS}")
        for machine in (stranger, clone):
            for unit, worker in zip(WORKERS.split(), ("copy", "steps"), strict=True):
                log = f"journalctl -u {unit} --no-pager -o cat"
                machine.await_that(f'{log} | grep -F "blockjobs: {taken.format(worker)}"')
                assert machine.say(f"systemctl is-active {unit}", check=False)[1].strip() != "active"
    await_host_up(control)
    operate(control, "backup web1:/srv/images/b.img web1:/backup/e.img")


def copy_folder(source, target):
    """Copy a folder of one disk to another, owners and all."""
    subprocess.run(["rm", "-rf", str(target)], check=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def test_an_upgrade_a_copy_of_the_registry_and_a_removal_go_by_the_words_of_the_readme(fleet, wheel):
    control, web1 = fleet
    own = "/etc/systemd/system/blockjobs-worker@.service.d/own.conf"
    web1.say(f"printf '[Service]\\nNice=1\\n' > {own}; systemctl stop {WORKERS}")
    control.say(f"systemctl stop {DAEMONS}")
    install, *others = blocks("Upgrading")[0].splitlines()
    assert install == "/opt/blockjobs/bin/pip install --upgrade blockjobs"
    control.say(f"{install.rpartition(' ')[0]} --quiet --no-deps --force-reinstall /{wheel.name}")
    for machine, units in ((control, DAEMONS), (web1, WORKERS)):
        machine.say("\n".join([*others, f"systemctl start {units}"]))
    await_host_up(control)

    control.say(blocks("A copy of the registry")[0])
    before = operate(control, "history")[1]
    assert "nightly" in before
    control.say("systemctl stop redis-server; rm -r /var/lib/redis/appendonlydir")
    control.say("tar -C /var/lib/redis -xf /root/registry.tar; systemctl start redis-server")
    control.await_that(as_user("operator", "blockjobs history"))
    assert operate(control, "history")[1] == before
    await_host_up(control)
    operate(control, "backup web1:/srv/images/b.img web1:/backup/d.img")

    web1.say(blocks("Removing a storage host")[0].replace(" /opt/blockjobs", ""))  # which is the other machine's
    control.await_that(as_user("viewer", "blockjobs hosts") + " | grep -E '^web1 +left'")
    assert web1.say("systemctl list-units --all --no-legend 'blockjobs*'; ls /backup/d.img")[1] == "/backup/d.img\n"

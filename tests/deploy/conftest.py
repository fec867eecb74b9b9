"""What the stories of whole machines share: the wheel, and a fleet that is set up by the words of deploy/README.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import make_certificates
from machines import Machine, why_not

ROOT = Path(__file__).parents[2]
PACKAGES = Path("/var/cache/blockjobs-tests/redis/packages")
PORT = 16379  # the network is that of this machine
TLS = f"rediss://{{user}}@127.0.0.1:{PORT}/0?ssl_ca_certs=/etc/blockjobs/ca.pem"


def blocks(title: str, document: str = "deploy/README.md") -> list[str]:
    """The commands of a section of a document, block by block."""
    text = (ROOT / document).read_text()
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, title
    found = re.findall(r"(?:^\n?(?: {4,}).*\n)+", section[1], re.MULTILINE)
    return [re.sub(r"^ +", "", block, flags=re.MULTILINE).lstrip() for block in found]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run(argv, check=True)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def fleet(wheel, certificates):
    """A control machine with Debian's Redis behind TLS, and the storage host web1."""
    if why := why_not():
        pytest.skip(why)
    if not PACKAGES.is_dir():
        pytest.skip("Debian's packages of Redis are not here: make tools, as root")
    with Machine("control") as control, Machine("web1") as web1:
        prepare_machine(control, wheel)
        (control.root / "packages").mkdir()
        for package in PACKAGES.glob("*.deb"):
            (control.root / "packages" / package.name).write_bytes(package.read_bytes())
        control.install("dpkg -i /packages/*.deb")
        for name, target in (("server.pem", "redis.pem"), ("server.key", "redis.key"), ("ca.pem", "ca.pem")):
            (control.root / "etc/redis" / target).write_bytes((certificates / name).read_bytes())
        control.install("chmod 644 /etc/redis/redis.key")
        with (control.root / "etc/redis/redis.conf").open("a") as conf:
            conf.write(blocks("TLS with an authority of your own")[0].replace("6379", str(PORT)))
        # The program is the same on every machine; installed once, seen by the other.
        web1.install("mkdir -p /opt/blockjobs")
        for machine in (control, web1):
            (machine.root / "etc/blockjobs").mkdir(exist_ok=True)
            (machine.root / "etc/blockjobs/ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
        yield control, web1


def prepare_machine(machine, wheel):
    """The first lines of the section "Every machine": the wheel at /opt/blockjobs."""
    (machine.root / wheel.name).write_bytes(wheel.read_bytes())
    lines = blocks("Every machine")[0].splitlines()
    assert lines[1] == "/opt/blockjobs/bin/pip install blockjobs"
    machine.install("\n".join([lines[0], f"/opt/blockjobs/bin/pip install --quiet /{wheel.name}"]))


def set_url(machine, role, user):
    """What an administrator writes into an environment: where Redis is, with TLS."""
    machine.say(
        f"sed -i 's|^BLOCKJOBS_REDIS_URL=.*|BLOCKJOBS_REDIS_URL={TLS.format(user=user)}|' /etc/blockjobs/{role}.env"
    )

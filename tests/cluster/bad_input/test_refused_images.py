"""Images that are not what their manifests say, and manifests that are not to be believed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from fleet import MIB
from sites import Said, Site, job

from blockworker.targets import manifest


@pytest.fixture
def published(site: Site, tmp_path: Path) -> Path:
    """A committed image with its files, in a place of its own."""
    said = site.say("run", site.file(job(target="a:ROOT/backup/image.img")))
    assert said.code == 0
    for path in (site.root / "backup").glob("image.img*"):
        shutil.move(path, tmp_path)
    return tmp_path / "image.img"


def test_verify_names_the_mebibyte_that_differs_and_goes_on_after_what_it_cannot_compare(site: Site, published: Path):
    assert site.say("verify", published) == Said(0, f"{published}: {3 * MIB - 5} bytes as in the manifest\n", "")
    site.say("verify", published.with_name("no.img")).refused(
        "no.img.manifest.json: No such file or directory; an image that a job has committed was expected"
    )
    site.say("verify").refused("Missing argument 'TARGETS...'")
    content = bytearray(published.read_bytes())
    content[MIB + 5] ^= 1
    published.write_bytes(content)
    differs = f"{published}: bytes {MIB} to {2 * MIB} differ from the manifest\n"
    assert site.say("verify", published) == Said(1, differs, "")
    both = site.say("verify", published.with_name("no.img"), published)
    assert (both.code, both.out) == (1, differs)
    os.truncate(published, 5)
    assert site.say("verify", published).out == f"{published}: bytes 0 to {3 * MIB - 5} differ from the manifest\n"
    published.unlink()
    site.say("verify", published).refused(f"image {published}: No such file or directory")


def test_a_restore_says_what_it_cannot_restore(site: Site):
    assert site.start("a:ROOT/disk.img", "a:ROOT/backup/image.img").code == 0
    published = site.root / "backup" / "image.img"
    before = site.disks(), site.registry()
    site.say("restore", "nobody.knows", f"a:{site.root}/x").refused(
        "no job is named 'nobody.knows'; RUN.JOB of a backup, or HOST:/PATH of its image was expected"
    )
    site.say("restore", f"a:{published}", "b:/x").refused("copying between hosts is not supported yet")
    site.say("restore", f"a:{published}", f"a:{published}").refused("target equals source")
    site.say("restore", f"a:{published}", "a:/dev/x").refused("or 'in-place: true'")
    site.say("restore", f"a:{published}", f"a:{site.root}/x", "--offset", "-1").refused(
        "--offset", "'-1' is not a size"
    )
    site.say("restore", f"a:{published}").refused("Missing argument 'DEST'")
    assert (site.disks(), site.registry()) == before
    back = f"a:{site.root}/back.img"
    site.say("restore", f"a:{published}", back, "--offset", "2MiB", "--length", "1MiB").line(
        1, f"bytes {2 * MIB} to {3 * MIB} are not all in image {published}: it has {3 * MIB - 5} bytes"
    )
    site.say("restore", f"a:{published}", back, "--offset", "1TiB").line(1, "are not all in image")
    path = published.with_name("image.img.manifest.json")
    keys = json.loads(path.read_text())
    for bad, said in [
        ({"version": 3}, "a manifest of version 1 or 2 was expected"),
        ({"format": "vdi"}, "its manifest names an unknown format: one of raw, qcow2, vmdk was expected"),
        ({"format": "qcow2"}, "Image is not in qcow2 format"),
        ({"digests": None}, "only `--force` restores what cannot be checked"),
        ({"digests": keys["digests"] | {"root": "00"}}, "are not the ones that the manifest names"),
        ({"digests": keys["digests"] | {"file": "../x"}}, "digests of an unknown kind"),
        ({"size": 9 << 40}, "are not the ones that the manifest names"),
    ]:
        path.write_bytes(manifest.manifest_text(keys | bad))
        site.say("restore", f"a:{published}", back).line(1, said)
    assert site.disks().keys() == before[0].keys()
    for path in published.parent.glob("image.img*"):
        path.unlink()


def test_verify_believes_nothing_of_a_manifest(site: Site, published: Path):
    path = published.with_name("image.img.manifest.json")
    keys = json.loads(path.read_text())
    own = keys["digests"]
    for bad, said in [
        ({"version": 3}, "a manifest of version 1 or 2 was expected"),
        *[({"size": size}, "a number of bytes was expected") for size in ("x", None, True, 1.5, -1, 1 << 64)],
        ({"size": 5}, "are not the ones that the manifest names"),
        ({"digests": None}, "was copied with 'digests: false': there is nothing to verify it with"),
        *[({"digests": digests}, f"digests: {digests}: an object or null was expected") for digests in (5, [])],
        *[({"digests": own | {"file": name}}, "digests of an unknown kind") for name in ("../x", "", "..", 5, "a\0b")],
        ({"digests": own | {"chunk": 512}}, "digests of an unknown kind: blake3 by 1 MiB was expected"),
        ({"digests": own | {"root": "00"}}, "are not the ones that the manifest names"),
        ({"digests": own | {"file": "none"}}, "none: No such file or directory"),
    ]:
        path.write_bytes(manifest.manifest_text(keys | bad))
        site.say("verify", published).refused(said)
    for content in (b"", b"\xff", b"[" * 100_000, b"null"):
        path.write_bytes(content)
        site.say("verify", published).refused(f"manifest {path}", "a manifest of version 1 or 2 was expected")
    path.unlink()
    os.mkfifo(path)
    site.say("verify", published).refused(f"manifest {path}", "a manifest of version 1 or 2 was expected")

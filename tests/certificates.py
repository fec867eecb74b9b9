"""Keys and certificates for tests of TLS, made with openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificates(place: Path) -> Path:
    """Keys and certificates of an authority (``ca``), a server for 127.0.0.1, a client, and a ``stranger``."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: certificates are made with it")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for name in ("ca", "stranger"):
        run("req", "-x509", *curve, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
    for name, address in (("server", "IP:127.0.0.1"), ("client", "IP:127.0.0.1"), ("elsewhere", "DNS:other.example")):
        run("req", *curve[:5], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={address}")  # fmt: skip
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-copy_extensions", "copy", "-out", f"{name}.pem")  # fmt: skip
    return place

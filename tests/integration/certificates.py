"""Certificates of an authority that only a test knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.balancers import found_program


def make_certificates(folder: Path) -> None:
    """Write an authority to `ca.pem`, and by it `certificate.pem` for localhost."""
    program = found_program("openssl", "openssl")
    new = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    authority = ["-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem"]
    server = ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "certificate.pem"]
    server += ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"]
    server += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    for own in (authority, server):
        subprocess.run([*new, *own], cwd=folder, check=True, capture_output=True)

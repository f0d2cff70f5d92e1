"""ZooKeeper, by kazoo: an ephemeral node for each server, which ends with the server's session.

The library has threads of its own, which keep the session and connect again. What is asked here
waits for an answer, but for a few seconds only. The library's log is silenced: what fails is told
by exceptions here, and its lines of details would show passwords.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any
from weakref import finalize

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.security import CREATOR_ALL_ACL, READ_ACL_UNSAFE

from batcher.client.balancer import start_daemon
from batcher.client.listed_server import MAX_SERVERS, ListedServer
from batcher.client.registries.records import id_of, read_record, readable, record_of
from batcher.client.registries.registry import PERIOD_S
from batcher.core.registry_address import RegistryAddress

_TIMEOUT_S = 3.0
_SESSION_S = 10.0
"""Session of a client that only reads."""

_LOG = logging.Logger("batcher.zookeeper", logging.CRITICAL + 1)


class ZooKeeper:
    """Nodes below `/service` in ZooKeeper. The contract is that of `Registry`."""

    period_s = PERIOD_S

    def __init__(self, address: RegistryAddress) -> None:
        """Ask the servers at `address`, with its user and password if it has some."""
        self.place = address.place
        self._path = f"/{address.service}"
        self._hosts = ",".join(
            [
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                for host, port in address.hosts
            ]
        )
        login = f"{address.user}:{address.secret}"
        self._auth = [("digest", login)] if address.user else None
        self._acl = [*CREATOR_ALL_ACL, *READ_ACL_UNSAFE] if address.user else None
        self._client: Any = None
        self._process = 0
        self._end: Any = None  # ends the session of a registry that nobody has closed
        self._node = ""
        self._record = b""

    def servers(self) -> list[ListedServer]:
        """Return the servers below the service's path."""
        client, ends_at = self._connected(_SESSION_S), monotonic() + _TIMEOUT_S
        try:
            names = _answer(client.get_children_async(self._path))
        except NoNodeError:
            return []
        reads = [client.get_async(f"{self._path}/{name}") for name in names[:MAX_SERVERS]]
        records = []
        for read in reads:
            with suppress(NoNodeError):  # gone since
                records.append(_answer(read, max(ends_at - monotonic(), 0))[0])
        return readable(records, read_record)

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        """Make the node, or make it anew where another session has it, or write into it."""
        client = self._connected(ttl_s)
        self._node, record = f"{self._path}/{id_of(server)}", record_of(server)
        found = _answer(client.exists_async(self._node))
        if found is not None and found.ephemeralOwner != client.client_id[0]:
            _answer(client.delete_async(self._node))  # of this server's last run
            found = None
        if found is None:
            _answer(client.ensure_path_async(self._path, self._acl))
            _answer(client.create_async(self._node, record, acl=self._acl, ephemeral=True))
        elif record != self._record:
            _answer(client.set_async(self._node, record))
        self._record = record

    def withdraw(self) -> None:
        """Take the node out."""
        if self._node and self._client is not None:
            try:
                _answer(self._client.delete_async(self._node))
            except NoNodeError:
                return

    def close(self) -> None:
        """End the session, and with it the node."""
        client, self._client = self._client, None
        if client is not None and self._end.detach() is not None:
            _end(client, self._process)

    def _connected(self, session_s: float) -> Any:
        """Return a client that has been connected once; later it connects again by itself."""
        if self._client is None or self._process != os.getpid():  # its threads do not fork
            client = KazooClient(self._hosts, timeout=session_s, auth_data=self._auth, logger=_LOG)
            try:
                client.start(timeout=_TIMEOUT_S)
            except BaseException:
                client.close()
                raise
            self._client, self._process = client, os.getpid()
            # The library's threads hold its client, so it would stay for ever.
            self._end = finalize(self, _end_soon, client, self._process)
            self._end.atexit = False
        return self._client


def _answer(asked: Any, seconds: float = _TIMEOUT_S) -> Any:
    return asked.get(timeout=seconds)


def _end_soon(client: Any, process: int) -> None:
    """End a session, which may take seconds, beside whichever thread collects garbage."""
    start_daemon(partial(_end, client, process))


def _end(client: Any, process: int) -> None:
    """End a session, unless it is that of the process from which this one was forked."""
    if process == os.getpid():
        client.stop()
        client.close()

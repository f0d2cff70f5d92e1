"""An asynchronous batching inference server.

Next to nothing is imported here, so that a program pays only for the parts that it uses:
`batcher.serving.server.ModelServer` to hold models inside another Twisted program,
`batcher.app.service.BatcherService` for the whole server, `serve.py` to run it.
"""

# Before Twisted is imported, which removes what that reads.
from batcher.core import systemd_sockets as systemd_sockets

__version__ = "0.1.0"

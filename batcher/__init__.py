"""An asynchronous batching inference server.

Next to nothing is imported here, so that a program pays only for the parts that it uses: `batcher.server.ModelServer` to
hold models inside another Twisted program, `batcher.service.BatcherService` for the whole server, `serve.py` to run it.
"""

from batcher import inherited as inherited  # before Twisted is imported, which removes what that reads

__version__ = "0.1.0"

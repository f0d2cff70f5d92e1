"""An asynchronous batching inference server.

Nothing is imported here, so that a program pays only for the parts that it uses: `batcher.server.ModelServer` to hold models
inside another Twisted program, `batcher.service.BatcherService` for the whole server, `serve.py` to run it.
"""

__version__ = "0.1.0"

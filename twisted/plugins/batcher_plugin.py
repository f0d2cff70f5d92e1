"""Makes `twist batcher` and `twistd batcher` known to Twisted."""

from twisted.application.service import ServiceMaker

batcher = ServiceMaker(
    "batcher", "batcher.app.twist_plugin", "An asynchronous batching inference server.", "batcher"
)

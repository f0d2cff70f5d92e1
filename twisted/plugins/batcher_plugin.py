"""Makes `twist batcher` and `twistd batcher` known to Twisted."""

from twisted.application.service import ServiceMaker

batcher = ServiceMaker("batcher", "batcher.tap", "An asynchronous batching inference server.", "batcher")

"""gRPC: the Open Inference Protocol's service and the standard health service, over `ModelServer.infer`. Needs asyncio."""

"""The Open Inference Protocol v2, spoken by clients of other servers: HTTP, and parts for gRPC."""

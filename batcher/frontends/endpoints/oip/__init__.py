"""The Open Inference Protocol v2 over HTTP: what other servers' clients speak."""

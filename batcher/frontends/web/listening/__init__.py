"""Sockets that listen, TLS, and the ports and transports of asyncio and of Twisted."""

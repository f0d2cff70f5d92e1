"""Sockets that listen, TLS, and the two kinds of transports: those of asyncio and those of Twisted."""

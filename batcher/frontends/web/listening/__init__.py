"""Sockets that listen, TLS, and the two kinds of transports.

Those of asyncio and those of Twisted.
"""

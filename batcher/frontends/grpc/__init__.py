"""gRPC: the Open Inference Protocol's service and the standard health service.

The library needs the asyncio loop, so this front runs under Twisted's asyncio reactor alone.
"""

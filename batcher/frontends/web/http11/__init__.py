"""HTTP/1.1 as bytes: requests read, bounded and checked, answers rendered.

No socket and no loop.
"""

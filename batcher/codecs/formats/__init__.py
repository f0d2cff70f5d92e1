"""The formats of the native route, one a file.

Bytes to arrays by name, and arrays by name to bytes.
"""

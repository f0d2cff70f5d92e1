"""Policies that the server does not ship: what other servers do, and what the best could be.

Each decides under the real dispatcher, as a shipped policy does. Unlike those, most know more than
a policy may: when devices became idle.
"""

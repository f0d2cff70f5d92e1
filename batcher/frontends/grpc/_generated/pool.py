"""The pool of the protocol's messages, apart from protobuf's own.

A program may hold another client's copy of the same definitions, and two copies in one pool clash.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()

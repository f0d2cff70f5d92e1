"""Where the messages live: a pool of their own, since a program may hold another client's copy of the same definitions."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()

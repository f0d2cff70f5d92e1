"""A child process for codecs that would keep the interpreter lock of this process for long."""

"""The program: the whole server as a service, its command line, and the check of models."""

"""The program: the whole server as a service, its command line, and the tools that look at models before they serve."""

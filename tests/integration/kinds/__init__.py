"""Every kind of model in every format, served by a thread and by a process."""

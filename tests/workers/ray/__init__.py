"""Workers on Ray, with a cluster in memory."""

"""Where every way in listens: sockets, certificates, and the ports of an asyncio loop."""

"""A page that shows a result: a server on this machine, and what it serves."""

"""A page that shows a stored harvest: a server on this machine, and what it serves."""

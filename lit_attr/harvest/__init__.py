"""The Lightning side: it moves data between the rooms below, shards it over processes, and writes the result."""

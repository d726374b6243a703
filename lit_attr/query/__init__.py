"""Asking a result: keys as people write them, answers as people read them, and an index that makes it fast."""

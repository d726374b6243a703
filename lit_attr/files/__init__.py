"""Bytes on disk: files that appear whole or not at all, seals, locks, places. Knows no attribution."""

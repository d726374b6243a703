"""The drawing of the house: which room imports which, read from the source, for docs/architecture.md and its test."""

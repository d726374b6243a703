"""Names: canonical addresses and keys, and where each architecture keeps the matrices they stand for."""

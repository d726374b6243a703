"""One finished result: its content, provenance and file, and finding it. Knows no model and no harvest in progress."""

"""The mathematics: from a captured forward to sums of attributions. Knows no Lightning and no files."""

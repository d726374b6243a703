"""Texts to rows of token ids on disk, in the order that a run was trained in; token files; ids of batches."""

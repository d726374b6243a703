"""From a dataset's name to rows of token ids on disk, in the order that a decomposition run was trained in."""

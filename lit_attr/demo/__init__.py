"""A small model of stories, its decomposition, and a mechanism to find in it: shipped, and made by the scripts here."""

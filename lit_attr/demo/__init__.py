"""The demo that is shipped: the grammar of its stories, a mechanism to find in its model, and a walk along it."""

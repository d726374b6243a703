"""The demo's factory: trains the model of stories and its decompositions, and measures them."""

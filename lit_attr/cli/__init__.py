"""The command line: `lit-attr predict` and its sisters."""

"""The package version, read by the build and by provenance records."""

__version__ = "0.2.0.dev0"

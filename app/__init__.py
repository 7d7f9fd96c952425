"""Tollgate: a machine becomes a paid model API. docs/architecture.md names the rooms, top to bottom."""

__version__ = "0.1.0"

"""Tollgate's tests: they mirror app/."""

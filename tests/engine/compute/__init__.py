"""Mirrors app/engine/compute."""

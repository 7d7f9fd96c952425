"""Schedules and runs jobs on models: plain jobs in, plain events out.

No text, no HTTP, no money. Tensors only from compute/ upwards.
"""

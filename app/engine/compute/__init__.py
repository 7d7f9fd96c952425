"""Tensors: model families, caches, sampling, beams.

No queues, no jobs' lifecycle, no text.
"""

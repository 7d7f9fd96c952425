"""The catalogue of models, where their files come from, and which are resident.

No HTTP, no SQL, no tensors: the engine loads, this room decides.
"""

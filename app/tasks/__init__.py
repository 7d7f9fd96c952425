"""One file per task: text in, text out, over the engine's jobs and events.

No HTTP and no tensors.
"""

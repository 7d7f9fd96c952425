"""HTTP ends here: wire formats and the way back to frames, a dialect a file.

No business rule, no SQL, no tensors.
"""

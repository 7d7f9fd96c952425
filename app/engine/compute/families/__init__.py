"""One file per model_type; the file name is the registration.

Nothing here knows about batching policy or jobs.
"""

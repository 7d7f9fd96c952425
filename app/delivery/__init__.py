"""What leaves the house by itself: signed webhooks and usage events, out of the database's queues, each at least once.

No request waits for it, and nothing of a prompt or an output passes it.
"""

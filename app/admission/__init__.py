"""Who may pass, and what is owed: authentication and the reservation of a request.

No HTTP, no SQL (metering has it), no model code.
"""

"""Tables, keys, tenants, prices and the ledger: everything that is kept.

The only room that knows SQL; nothing of models or HTTP.
"""

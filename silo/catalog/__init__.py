"""Which skills there are: their headers, locks, environments and what they say of themselves, and where they are kept.

Nothing here runs a skill or starts a python that could: `silo.install.installer` puts the steps in order, `silo.sandbox`
runs the script. What may be called is `silo.policy`'s, finding a tool by what it does `silo.router`'s.
"""

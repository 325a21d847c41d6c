"""Running a skill where it can do no harm.

`base` has the contracts, `backends` the ways to isolate, `skill` the wire of a call.
"""

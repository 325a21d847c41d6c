"""Running a skill isolated from the host.

`base` has the contracts, `backends` the ways to isolate, `skill` the protocol of a call.
"""

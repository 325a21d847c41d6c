"""Skills and their parts: headers, locks, environments, descriptions of tools, and the store of installed skills.

Nothing here runs a skill or starts a python that could run it: `silo.install.installer` has the order of the steps,
`silo.sandbox` runs the script. `silo.policy` decides what may be called, `silo.router` finds tools by meaning.
"""

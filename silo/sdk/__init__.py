"""The inside of a skill: registering tools, JSON Schema from annotations, secrets, results, and running one call.

Standard library only, because it is mounted into every guest; authors import from `silo`, not from here. A call goes
through `skill` (what was registered) → `signature`, `annotations`, `shapes` (what it takes) → `schema` and `describe`
(what an agent is told) or `coerce` → `invoke` → `encode` (what runs and comes back).
"""

"""What runs inside a guest: `init`, its first process, and `runner`, which imports the skill and runs one call.

Standard library only, and only `silo.wire` and `silo.sdk` beside it. The host's side of the same conversation is
`silo.sandbox.skill.link`; the messages are `silo.wire.messages`.
"""

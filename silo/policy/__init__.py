"""The user's rules about calls. Pure: no clock, no files, no prompts (`silo.approvals.consent` asks a person)."""

"""The rules of who may do what. Pure: no clock, no files, no prompts (asking a person is `silo.approvals.consent`')."""

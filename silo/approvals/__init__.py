"""Asking a person: `questions` says what is asked, `store` keeps decisions, `consent` says when a call may go on."""

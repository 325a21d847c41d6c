"""Asking a person: what is asked (`questions`), where decisions are kept (`store`), and when a call may go on (`consent`)."""

"""The messages between host and guest: pure, bounded, versioned, standard library only.

`frames` turns a byte stream into frames and back; `messages` gives frames their meaning. `docs/reference/wire.md` has
the order of the messages. Sockets and processes are elsewhere: the host's side is `silo.sandbox`, the guest's
`silo.guest`.
"""

"""The messages between host and guest: pure, bounded, versioned, standard library only.

`frames` turns a byte stream into frames and back; `messages` gives frames their meaning. Who sends what when is told in
`docs/reference/wire.md`. Sockets and processes are not here: the host's side is `silo.sandbox`, the guest's `silo.guest`.
"""

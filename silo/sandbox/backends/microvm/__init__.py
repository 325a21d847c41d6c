"""Guests with a kernel of their own, under QEMU."""

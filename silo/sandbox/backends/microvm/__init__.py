"""Guests with their own kernel, under QEMU."""

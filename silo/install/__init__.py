"""The path of an installation, in `installer`: the only way to install a skill."""

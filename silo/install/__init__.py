"""The path of an installation, in `installer`: the only way in which a skill is installed."""

"""Commands: one file each; nothing below knows a terminal."""

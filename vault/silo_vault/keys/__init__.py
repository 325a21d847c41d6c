"""Where the key that opens a vault may lie: one module for each place. The vault tries them in the order it is given."""

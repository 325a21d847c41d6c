"""Running a skill where it can do no harm. `base` has the protocols, `choose` picks a backend, `backends` holds them."""

"""The condition of the pool as a whole: the facts found, which parts are well, and whether the pool holds. Pure."""

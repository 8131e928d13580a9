"""The checker: search is not trusted (design, section 7)."""

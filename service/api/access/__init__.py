"""Who may come in, what is written down of it, and what each may see."""

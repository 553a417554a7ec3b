"""Ten thousand prompts: a file of them is asked, and what is interrupted goes on."""

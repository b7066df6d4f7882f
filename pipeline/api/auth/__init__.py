"""Who is asking: sign-in challenges, tokens, access to logs."""

"""A campaign to very many people under deaths, throttling and an unsubscribe storm; its judge."""

"""A trained assistant behind an API: replies, what is remembered of users, and what their feedback teaches."""

"""Measurements of the plugin on made-up data; nothing else imports them."""

"""A domain-randomised captcha generator with exact boxes."""

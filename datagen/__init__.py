"""Captcha generators that know the box of every character they draw."""

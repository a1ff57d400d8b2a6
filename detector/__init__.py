"""A variable-length text-captcha reader built on object detection."""

"""The one error of this room."""


class DataError(Exception):
    """Data that cannot be used; the message names the file, the field, what was found and what is right."""

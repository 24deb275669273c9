"""The life of the database, one file a duty: backed up, restored, rehearsed, watched. Nothing here prints anything."""


class UpkeepFailed(Exception):
    """The duty was refused or did not work; the message says why and what to do. The database is as it was."""

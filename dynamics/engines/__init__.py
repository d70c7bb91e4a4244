"""Where jobs execute: in this process, in a background worker, or on anything with ``submit()``."""

"""The LabLink service: the web page, the HTTP API, the sweeps and the `lablink` command."""

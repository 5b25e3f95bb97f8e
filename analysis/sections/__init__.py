"""The sections of a report, a file a subject; each takes `Results` and gives blocks, none where there is no data."""

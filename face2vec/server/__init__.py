"""The service: an HTTP API and pages over one gallery.

The way of a request: `access` lets it in or refuses it, `api` and `pages` answer it through
`Service`, which holds the engine, the decoding processes, the jobs and the thumbnails.
"""

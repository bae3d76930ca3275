"""The SQLite file: photos, faces, embeddings, people, journal and fingerprint.

In: `Entry` records of photos, and edits of people.
Out: snapshots of one state.
May import: ``calibration``, ``fingerprint``, ``photos.discover`` (paths).
"""

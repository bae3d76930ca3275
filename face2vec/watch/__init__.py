"""Keeps a gallery current while the files of its folders change, and tells a webhook who was seen.

`settling` waits until files are complete, `watcher` follows the folders, `webhook` sends.
"""

from face2vec.watch.watcher import Change, watch
from face2vec.watch.webhook import Webhook

__all__ = ["Change", "Webhook", "watch"]

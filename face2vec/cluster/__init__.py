"""Galleries on several machines: Milvus, PostgreSQL and Ray behind the calls of one machine.

Nothing here is imported before an address ``milvus://…`` or workers of Ray are asked for.
"""

from __future__ import annotations

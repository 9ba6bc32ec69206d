"""What the runbooks of day 2 share: drains, copies of volumes, snapshots and backups, what expires."""

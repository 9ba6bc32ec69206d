"""fluobook.machine"""

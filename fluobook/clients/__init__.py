"""fluobook.clients"""

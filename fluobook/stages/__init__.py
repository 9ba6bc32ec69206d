"""fluobook.stages"""

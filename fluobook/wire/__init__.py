"""fluobook.wire"""

"""fluobook.gitops"""

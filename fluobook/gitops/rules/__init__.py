"""The rules of `fluobook check`, by subject; `fluobook.gitops.check` lists and applies them."""

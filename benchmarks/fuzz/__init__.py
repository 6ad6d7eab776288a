"""Every reader fed with damaged files: which refuse with a sentence, and which do not."""

"""One file and one function per verb: the wiring of the parts, and the Python API of the command line.

``from medssml.verbs.pretrain import pretrain``. A verb's module imports nothing heavy: what is heavy is imported inside
the function, so that ``medssml VERB --help`` answers at once.
"""

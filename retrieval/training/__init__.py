"""Training a small diffusion network over the feature maps of a frozen encoder, as the bundled `mini` was trained.

    python -m diffsim.retrieval.training pictures.csv --out mini

recipe.py        every number that decides the weights
pack.py          a table and its pictures as one small file, for a training on another machine
pictures.py      the table of pictures: collections, subjects in several styles, kinds of things
treatments.py    random image filters, applicable to any picture
encoded.py       the encoder's features of all pictures, computed once
batches.py       the input of one step, a function of seed and step alone
losses.py        denoising, the Aligned Attention Score trained to find what belongs together, keeping what is known
trainer.py       the network, its moving average and the optimizer: one step, and checkpoints
model_folder.py  a trained network as a folder
run.py           from the table to a model folder, with the log
curve.py         the log as a picture
"""
